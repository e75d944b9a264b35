"""Runs a recording through the pipeline: the same bytes in give the same lines out.

Owns the loop over frames; never touches the kernel and never writes a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from monitor import recording
from monitor.clock import WallClock
from monitor.decode import DecodeError
from monitor.encode import Origin
from monitor.enrich import HostFacts, UserNames
from monitor.fastpath import EXPECTED, POS
from monitor.kernel.compile import Shape
from monitor.kernel.rings import Capture
from monitor.naming import Tasks
from monitor.order import Order
from monitor.pipeline import Pipeline
from monitor.recording import CPU, FOUND, RecordingError, ReplayCapture


class _RecordedClock(WallClock):
    """A clock that shows the offset of the frame that is being replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded_ns = 0

    @property
    def offset_ns(self) -> int:
        return self.recorded_ns


def about(origin: Origin, passwd: Path = Path("/etc/passwd"), group: Path = Path("/etc/group")) -> dict[str, Any]:
    """What a recording's header says beside its shape, so that a replay elsewhere gives the same lines."""
    host = origin.host
    return {
        "epoch": origin.epoch,
        "tags": list(origin.tags),
        "labels": dict(origin.labels),
        "names": {"passwd": passwd.read_text("utf-8", "replace"), "group": group.read_text("utf-8", "replace")},
        "host": {
            "id": host.id,
            "id_source": host.id_source,
            "name": host.name,
            "boot_id": host.boot_id,
            "agent_id": host.agent_id,
        },
    }


def replay(path: Path, scratch: Path) -> Iterator[bytes]:
    """The lines of the recorded events, in batches. `scratch`: an empty directory for the recorded name files.

    Lines of the monitor itself are not in a recording. Raises RecordingError.
    """
    header, frames = recording.read(path)
    try:
        made, host = Shape(**header["shape"]), HostFacts(**header["host"])
        for name, text in header["names"].items():
            (scratch / Path(name).name).write_text(text, encoding="utf-8")
        own = tuple(header.get("tags", ())), tuple(header.get("labels", {}).items())
        origin = Origin(host, str(header["epoch"]), *own)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path}: the header lacks {error}") from error
    capture, clock = ReplayCapture(made), _RecordedClock()
    order = Order(cast(Capture, capture))
    users = UserNames(scratch / "passwd", scratch / "group")
    pipeline: Pipeline | None = None
    found: list[bytes] = []
    for frame in frames:
        if frame.kind == CPU:
            order.cpus[frame.number, POS], order.cpus[frame.number, EXPECTED] = (
                frame.position,
                int.from_bytes(frame.data, "little"),
            )
            capture.accounts[frame.number, 0] = frame.position
        if frame.kind == FOUND:
            found.append(frame.data)
        if not capture.take(frame):
            continue
        if pipeline is None:
            pipeline = Pipeline(order, origin, Tasks(host, users), clock)
        try:
            while found:
                pipeline.remember(found.pop(0))
        except DecodeError as error:
            raise RecordingError(f"{path}: a process that the scan found: {error}") from error
        clock.recorded_ns = int.from_bytes(frame.data, "little", signed=True)
        yield from _look(order, pipeline)


def _look(order: Order, pipeline: Pipeline) -> Iterator[bytes]:
    order.look()
    whole = False
    while not whole:
        whole = pipeline.fill()
        order.take_gaps()
        if pipeline.lines:
            yield bytes(pipeline.batch)
        pipeline.committed()
