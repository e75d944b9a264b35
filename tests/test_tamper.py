"""Who is told to have interfered, and for how long the monitor was stopped. The real pins are in tests/kernel/test_tamper.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from monitor.encode import Names
from monitor.tamper import Guard, Watch, Witness

PINS = Path("/sys/fs/bpf/ebpf-monitor")


class Untouched:
    """A guard that finds nothing."""

    def look(self) -> list[dict[str, Any]]:
        return []


def witness(*acts: tuple[str, str, int]) -> Witness:
    """One that has seen these acts: event, path, process."""
    made = Witness(PINS, {os.getpid()})
    for event, path, pid in acts:
        made.note(event, Names({"file": {"path": path}}), {"process": {"pid": pid}, "user": {"id": "0"}}, {})
    return made


def test_an_act_on_the_pin_itself_goes_before_a_later_mount() -> None:
    seen = witness(("file_delete", f"{PINS}/capture/map_rings", 10), ("file_mount", "/", 11))
    assert seen.who("pin_removed", "map_rings") == {"pid": 10, "event": "file_delete", "user": {"id": "0"}}


def test_an_act_explains_one_change_only() -> None:
    seen = witness(("file_delete", f"{PINS}/capture/map_rings", 10), ("file_mount", "/", 11))
    assert [cast(Any, seen.who("pin_removed", "map_rings"))["pid"] for _ in range(2)] == [10, 11]


def test_the_removal_of_another_pin_is_not_it() -> None:
    assert witness(("file_delete", f"{PINS}/capture/map_calls", 10)).who("pin_removed", "map_rings") is None


def test_the_pause_is_that_before_the_first_look_though_the_signal_is_heard_of_after_it() -> None:
    times = iter((1000.0, 1004.2, 1004.3, 1005.3))
    watch = Watch(cast(Guard, Untouched()), witness(), clock=lambda: next(times))
    watch.look()
    watch.look()
    watch.continued = True
    watch.look()
    (told,) = watch.look()
    assert (told["kind"], told["paused_ms"]) == ("monitor_stopped", 4200)


def test_a_stop_within_a_look_is_told_whole() -> None:
    now = [1000.0]

    class Stopped(Untouched):
        def look(self) -> list[dict[str, Any]]:
            now[0] += 4.2
            watch.continued = True
            return []

    watch = Watch(cast(Guard, Stopped()), witness(), clock=lambda: now[0], _last=1000.0)
    watch.look()
    watch.guard = cast(Guard, Untouched())
    (told,) = watch.look()
    assert told["paused_ms"] == 4200
