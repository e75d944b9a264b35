"""Each damage that a log can have is one finding of its kind, and a whole log has none."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor import verify
from monitor.logfiles import ReaderError
from monitor.verify import Report, check
from tests import loglines
from tests.loglines import EPOCH, line, made, run, start, stop, write

SECOND, THIRD = "1111111111111111", "2222222222222222"
LEDGER = {
    "kernel_seen": 9,
    "submitted": 9,
    "received": 8,
    "in_flight": 1,
    "died": 0,
    "made": 1,
    "logged": 9,
    "filtered": 0,
    "quarantined": 0,
    "unwritten": 0,
    "torn": 0,
}


def kinds(report: Report) -> dict[str, int]:
    return dict(report.counts)


def checked(directory: Path, *lines: bytes) -> Report:
    write(directory, lines)
    return check(directory)


def test_whole_log_has_no_findings(tmp_path: Path) -> None:
    write(tmp_path, [gzip.compress(b"".join(run(50)))], "events.jsonl.2.gz")
    write(tmp_path, run(20, SECOND, (EPOCH, 50))[:15], "events.jsonl.1")
    write(tmp_path, [*run(20, SECOND, (EPOCH, 50))[15:], *run(5, THIRD)])
    report = check(tmp_path)
    assert (kinds(report), report.exit_status, report.lines, report.files) == ({}, 0, 75, 3)
    assert report.text().endswith("no findings: the log is whole\n")
    assert [epoch.name for epoch in report.epochs] == [EPOCH, SECOND, THIRD]


LINES = run(20)
OTHER = run(9, SECOND, (EPOCH, 20))


def replaced(number: int, new: bytes) -> list[bytes]:
    return [*LINES[: number - 1], new, *LINES[number:]]


DAMAGES: dict[str, tuple[list[bytes], dict[str, int]]] = {
    "a line is missing": ([*LINES[:6], *LINES[7:]], {"hole": 1}),
    "lines are missing": ([*LINES[:6], *LINES[11:]], {"hole": 1}),
    "two holes": ([*LINES[:6], LINES[8], *LINES[12:]], {"hole": 2}),
    "a line is there twice": ([*LINES[:7], LINES[6], *LINES[7:]], {"repeat": 1}),
    "two lines are exchanged": ([*LINES[:5], LINES[6], LINES[5], *LINES[7:]], {"hole": 1, "order": 1}),
    "a line is no JSON": (replaced(7, b'{"@timestamp":\n'), {"unparsable": 1, "hole": 1}),
    "a line is binary": (replaced(7, b"\x00\xff\xfe\n"), {"unparsable": 1, "hole": 1}),
    "a line is a list": (replaced(7, b"[1]\n"), {"unparsable": 1, "hole": 1}),
    "a foreign line": ([*LINES[:7], b'{"hello":1}\n', *LINES[7:]], {"foreign": 1}),
    "event is no object": ([*LINES[:7], b'{"event":"x"}\n', *LINES[7:]], {"foreign": 1}),
    "the id is another number's": (replaced(7, LINES[6].replace(b'"sequence":7}', b'"sequence":8}')), {"event.id": 1}),
    "the id is another host's": (
        replaced(7, LINES[6].replace(b'"agent":{"id":"a1b2c3d4"', b'"agent":{"id":"ffffffff"')),
        {"event.id": 1},
    ),
    "a torn last line": ([*LINES, line(21)[:40]], {"torn": 1}),
    "the first lines of a later run": ([*LINES, *OTHER[2:]], {"hole": 1}),
    "a run ends early": ([*LINES[:15], *OTHER], {"hole": 1}),
    "a run goes on longer than the next one says": ([*LINES[:19], *run(9, SECOND, (EPOCH, 10))], {"chain": 1}),
    "the run before is another one": ([*LINES, *run(9, SECOND, (THIRD, 20))], {"chain": 1}),
    "a run without an end, and the next says nothing": ([*LINES[:19], *run(9, SECOND)], {"chain": 1}),
    "two runs mixed": ([*LINES[:10], *OTHER[:4], *LINES[10:], *OTHER[4:]], {"hole": 1, "order": 2}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_called_by_its_name(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_GROWTH_S", 0.05)
    lines, wanted = DAMAGES[damage]
    report = checked(tmp_path, *lines)
    assert kinds(report) == wanted, report.text()
    assert report.exit_status == 1
    assert all(kind in report.text() for kind in wanted)


def test_hole_says_which_numbers(tmp_path: Path) -> None:
    report = checked(tmp_path, *LINES[:6], *LINES[11:])
    assert "5 numbers, 7 to 11, missing" in report.text()


def test_damaged_archive_is_found(tmp_path: Path) -> None:
    write(tmp_path, [gzip.compress(b"".join(LINES))[:-9]], "events.jsonl.1.gz")
    report = checked(tmp_path, *OTHER)
    assert "damaged" in kinds(report)


def test_log_whose_oldest_files_are_gone_is_whole(tmp_path: Path) -> None:
    report = checked(tmp_path, *LINES[10:], *OTHER)
    assert kinds(report) == {}
    assert "older files are gone" in report.text()


def test_run_that_was_killed_is_whole_when_the_next_one_names_its_end(tmp_path: Path) -> None:
    assert kinds(checked(tmp_path, *LINES[:15], *run(9, SECOND, (EPOCH, 15)))) == {}


def test_power_loss_is_a_note(tmp_path: Path) -> None:
    report = checked(tmp_path, *LINES[:15], start(SECOND, boot="f" * 36), stop(2, SECOND))
    assert kinds(report) == {}
    assert "host went down" in report.text()


def test_recorded_losses_are_summed_by_class_and_are_no_findings(tmp_path: Path) -> None:
    losses = [("file", 3), ("file", 4), ("process", 5), ("file", 0)]
    records = [
        made(number, "monitor_loss", {"loss": {"class": name, "count": count}})
        for number, (name, count) in enumerate(losses, 2)
    ]
    report = checked(tmp_path, start(), *records, stop(6))
    assert (kinds(report), dict(report.losses)) == ({}, {"file": 7, "process": 5})
    assert "lost, and recorded as lost: 7 file events" in report.text()


def beat(number: int, **changes: Any) -> list[bytes]:
    """A run with a heartbeat as that line."""
    return [
        start(),
        *(line(n) for n in range(2, number)),
        made(number, "monitor_heartbeat", {"ledger": LEDGER | changes}),
        stop(number + 1),
    ]


def test_heartbeat_that_agrees_with_the_lines_is_right(tmp_path: Path) -> None:
    assert kinds(checked(tmp_path, *beat(10))) == {}


@pytest.mark.parametrize(
    "changes", [{"logged": 12, "received": 11}, {"received": 9}, {"unwritten": 1}, {"logged": "9"}]
)
def test_heartbeat_that_does_not_agree_is_found(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert kinds(checked(tmp_path, *beat(10, **changes))) == {"ledger": 1}


def test_heartbeat_may_stand_behind_lines_of_its_own_batch(tmp_path: Path) -> None:
    assert kinds(checked(tmp_path, *beat(12))) == {}


def test_many_findings_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    report = checked(tmp_path, *LINES, *[b"garbage\n"] * 1000)
    assert kinds(report) == {"unparsable": 1000}
    assert len(report.findings) == verify.MOST_SHOWN
    assert "unparsable: 980 more" in report.text()


def test_document_is_json_with_the_same_verdict(tmp_path: Path) -> None:
    report = checked(tmp_path, *DAMAGES["a line is there twice"][0])
    found = json.loads(json.dumps(report.document()))
    assert found["whole"] is False
    assert found["findings"] == {"repeat": 1}
    assert found["epochs"][0] == {"epoch": EPOCH, "first": 1, "last": 20, "lines": 20, "stopped": True}


def test_hostile_bytes_do_not_reach_the_terminal(tmp_path: Path) -> None:
    report = checked(tmp_path, *LINES, b'{"event":{"id":"\\u001b[2J"},"x":"\x1b[31m"}\n', b"\x1b[2J\n")
    assert all(row.isprintable() for row in report.text().splitlines())


def test_line_that_is_just_being_written_is_not_torn(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    path = write(tmp_path, [*LINES, line(21)[:40]])
    result: list[Report] = []
    thread = threading.Thread(target=lambda: result.append(check(tmp_path)))
    grows = verify._grows

    def grown(torn: Any) -> bool:
        with path.open("ab") as opened:
            opened.write(line(21)[40:])
        return grows(torn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_grows", grown)
        thread.start()
        thread.join(10)
    assert kinds(result[0]) == {}
    assert "being written" in result[0].text()


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReaderError):
        check(tmp_path / "nothing")


def test_empty_log_is_whole(tmp_path: Path) -> None:
    assert check(tmp_path).exit_status == 0


def test_helper_lines_are_what_the_encoder_writes() -> None:
    assert json.loads(loglines.line(2))["event"]["id"] == f"a1b2c3d4-{EPOCH}-000000000002"
