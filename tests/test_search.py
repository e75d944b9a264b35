"""Which lines a search gives: each filter, alone and together, over live, rotated, compressed and damaged files."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from monitor import events, parts, scan, search
from monitor.logfiles import Problem, files
from monitor.reader import MAX_LINE_BYTES, ReaderError
from monitor.scan import Scan
from monitor.search import Filter, FilterError, Found, Search, event_names
from tests import loglines
from tests.loglines import line, task

CONTAINER = "4f" * 32
LINES = [
    loglines.start(),
    line(2, path="/etc/passwd"),
    line(3, path="/etc/shadow", ret=-13, who=task(200, "cat", ("1000", "eve"))),
    line(
        4,
        "file_rename",
        "/srv/new",
        ret=0,
        ebpf={"claimed": True},
        sections={"file": {"path": "/srv/new", "name": "new", "Ext": {"original": {"path": "/srv/old"}}}},
    ),
    line(
        5,
        "process_exec",
        "/usr/bin/python3.11",
        ret=0,
        who=task(201, "python3.11", ("33", "www-data"), args=["python3", "-V"]),
    ),
    line(
        6,
        "socket_connect",
        None,
        ret=-111,
        who=task(201, "python3.11", ("33", "www-data")),
        ebpf={"socket": {"family": "AF_UNIX", "peer_path": "/run/db.sock"}},
    ),
    line(7, path="/data/x", sections={"container": {"id": CONTAINER}}, who=task(1007, "cat")),
    line(8, path='/tmp/ünïcode "quoted" back\\slash', who=task(202, "ü")),
    line(9, path="/tmp/[x]*?", who=task(203, "kworker/0:1", ("0", "root"))),
    line(10, path='/tmp/"event":"file_delete","pid":42,"outcome":"failure"', who=task(204, '"name":"eve"')),
    loglines.made(11, "monitor_loss", {"loss": {"class": "file", "count": 3}}),
    loglines.stop(12),
]


def numbers(found: Iterator[Found] | list[Found]) -> list[int]:
    return [orjson.loads(one.raw)["event"]["sequence"] for one in found]


def asked(directory: Path, problems: list[Problem] | None = None, **conditions: Any) -> Search:
    heard = problems.append if problems is not None else _unexpected
    return Search(directory, Filter(**conditions), heard)


def every(search: Search, size: int = 1 << 30) -> Iterator[Found]:
    return (found for piece in search.pieces(size) for found in search.of(piece))


def _unexpected(problem: Problem) -> None:
    pytest.fail(str(problem))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    loglines.write(tmp_path, LINES)
    return tmp_path


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, list(range(1, 13))),
    ({"pids": (100,)}, [2, 4]),
    ({"pids": (1,)}, []),  # the parent's
    ({"pids": (10,)}, []),  # the beginning of 100
    ({"pids": (100, 200)}, [2, 3, 4]),
    ({"users": ("eve",)}, [3]),
    ({"users": ("1000",)}, [3]),
    ({"users": ("33", "eve")}, [3, 5, 6]),
    ({"users": ("100",)}, []),
    ({"names": ("cat",)}, [2, 3, 4, 7]),
    ({"names": ("python*",)}, [5, 6]),
    ({"names": ("*thon3.1[01]",)}, [5, 6]),
    ({"names": ("ü",)}, [8]),
    ({"names": ("kworker/*", "ü")}, [8, 9]),
    ({"names": ("c?t",)}, [2, 3, 4, 7]),
    ({"names": ("*",)}, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"names": ("CAT",)}, []),
    ({"failed": True}, [3, 6]),
    ({"events": ("file_open",)}, [2, 3, 7, 8, 9, 10]),
    ({"events": ("file",)}, [2, 3, 4, 7, 8, 9, 10]),
    ({"events": ("socket", "process_exec")}, [5, 6]),
    ({"events": ("monitor",)}, [1, 11, 12]),
    ({"events": ("file_delete",)}, []),  # only in a name of line 10
    ({"paths": ("/etc/passwd",)}, [2]),
    ({"paths": ("/etc/*",)}, [2, 3]),
    ({"paths": ("/etc",)}, []),
    ({"paths": ("*shadow",)}, [3]),
    ({"paths": ("/srv/old",)}, [4]),
    ({"paths": ("/srv/new",)}, [4]),
    ({"paths": ("/usr/bin/python*",)}, [5, 6]),
    ({"paths": ("/run/*.sock",)}, [6]),
    ({"paths": ('*"quoted" back\\slash',)}, [8]),
    ({"paths": ("/tmp/ün*",)}, [8]),
    ({"paths": ("/tmp/[[]x]*",)}, [9]),
    ({"paths": ("/tmp/?x?[*]?",)}, [9]),
    ({"paths": ("/[!t]*/[px]*",), "names": ("cat",)}, [2, 7]),
    ({"containers": (CONTAINER,)}, [7]),
    ({"containers": ("4f4f4f",)}, [7]),
    ({"containers": ("f4",)}, []),
    ({"since_ns": loglines.at(10)}, [10, 11, 12]),
    ({"until_ns": loglines.at(3)}, [1, 2, 3]),
    ({"since_ns": loglines.at(3) + 1, "until_ns": loglines.at(5) - 1}, [4]),
    ({"failed": True, "names": ("cat",)}, [3]),
    ({"failed": True, "names": ("cat",), "pids": (100,)}, []),
    ({"users": ("www-data",), "events": ("socket",), "failed": True, "paths": ("*.sock",), "pids": (201,)}, [6]),
]


@pytest.mark.parametrize(("conditions", "wanted"), FILTERS, ids=lambda value: str(value)[:60])
def test_filter_gives_exactly_its_lines_in_order(log: Path, conditions: dict[str, Any], wanted: list[int]) -> None:
    assert numbers(every(asked(log, **conditions))) == wanted


@pytest.mark.parametrize(("conditions", "wanted"), FILTERS, ids=lambda value: str(value)[:60])
def test_bytes_that_are_looked_for_never_hide_a_match(log: Path, conditions: dict[str, Any], wanted: list[int]) -> None:
    """The needles are only a short cut: without them the answer is the same."""
    wanting = Filter(**conditions)
    raws = [raw.rstrip(b"\n") for raw in LINES]
    assert [orjson.loads(raw)["event"]["sequence"] for raw in raws if wanting.match(raw)] == wanted
    assert all(wanting.has_needles(raw) for raw in raws if wanting.match(raw))


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.integers(0, 20), st.integers(0, 20)
)
def test_glob_made_from_a_path_finds_that_path(path: str, first: int, second: int) -> None:
    low, high = sorted((first % (len(path) + 1), second % (len(path) + 1)))
    pattern = "".join(f"[{char}]" if char in "*?[" else char for char in path[:low]) + "*"
    pattern += "".join(f"[{char}]" if char in "*?[" else char for char in path[high:])
    raw = line(2, path=path)
    assert Filter(paths=(pattern,)).has_needles(raw)
    assert Filter(paths=(pattern,)).match(raw.rstrip(b"\n")) is not None


def test_line_is_given_as_the_log_has_it(log: Path) -> None:
    assert [one.raw + b"\n" for one in every(asked(log))] == LINES


@pytest.mark.parametrize("name", ["file_open", "file", "monitor", *events.EVENT])
def test_names_of_the_catalogue_are_events(name: str) -> None:
    assert event_names([name]) == (name,)


@pytest.mark.parametrize(
    ("name", "near"),
    [("file_opn", "file_open"), ("proces_exec", "process_exec"), ("files", "file"), ("xyzzy", "ebpf-monitor events")],
)
def test_unknown_event_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(FilterError, match=near):
        event_names([name])


def test_pattern_that_is_not_text_is_refused() -> None:
    with pytest.raises(FilterError, match="UTF-8"):
        Filter(paths=("/tmp/\udcff*",))


# ---- many files ------------------------------------------------------------------------------------------------------


def rotated(directory: Path) -> None:
    """Lines 1..12 in four files: gzip, zstd, plain, live."""
    loglines.write(directory, [gzip.compress(b"".join(LINES[:3]))], "events.jsonl.3.gz")
    loglines.write(directory, [zstandard.compress(b"".join(LINES[3:6]))], "events.jsonl.2.zst")
    loglines.write(directory, LINES[6:9], "events.jsonl.1")
    loglines.write(directory, LINES[9:], "events.jsonl")


def test_rotated_and_compressed_files_are_searched_oldest_first(tmp_path: Path) -> None:
    rotated(tmp_path)
    assert numbers(every(asked(tmp_path))) == list(range(1, 13))
    assert numbers(every(asked(tmp_path, failed=True))) == [3, 6]


def opened_files(directory: Path, monkeypatch: pytest.MonkeyPatch, **conditions: Any) -> tuple[list[int], list[str]]:
    """Numbers found, and the files whose blocks were read for it."""
    read: list[str] = []
    blocks = Scan.blocks

    def recorded(self: Scan) -> Iterator[bytes]:
        read.append(self.file.path.name)
        return blocks(self)

    monkeypatch.setattr(scan.Scan, "blocks", recorded)
    return numbers(every(asked(directory, **conditions))), read


def test_file_that_begins_after_the_time_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated(tmp_path)
    assert opened_files(tmp_path, monkeypatch, until_ns=loglines.at(4)) == (
        [1, 2, 3, 4],
        ["events.jsonl.3.gz", "events.jsonl.2.zst"],
    )


def test_file_that_ends_before_the_time_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rotated(tmp_path)
    for name in ("events.jsonl.3.gz", "events.jsonl.2.zst"):
        os.utime(tmp_path / name, ns=(loglines.START_NS, loglines.START_NS))
    assert opened_files(tmp_path, monkeypatch, since_ns=loglines.at(10)) == ([10, 11, 12], ["events.jsonl"])


def test_compressed_file_that_was_written_to_later_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back between two files must not hide the first."""
    loglines.write(tmp_path, [gzip.compress(b"".join(LINES[:3]))], "events.jsonl.1.gz")
    back = line(4, time_ns=loglines.at(1) - 3600 * loglines.SECOND_NS)
    loglines.write(tmp_path, [back])
    found, read = opened_files(tmp_path, monkeypatch, since_ns=loglines.at(2))
    assert (found, "events.jsonl.1.gz" in read) == ([2, 3], True)


def test_damaged_file_is_told_and_the_others_are_searched(tmp_path: Path) -> None:
    rotated(tmp_path)
    path = tmp_path / "events.jsonl.3.gz"
    path.write_bytes(path.read_bytes()[:-9])
    problems: list[Problem] = []
    assert set(numbers(every(asked(tmp_path, problems)))) >= set(range(4, 13))
    assert [problem.path.name for problem in problems] == ["events.jsonl.3.gz"]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="No such file"):
        list(every(asked(tmp_path / "nothing")))


def test_garbage_that_may_match_is_counted_and_other_garbage_is_not_even_looked_at(tmp_path: Path) -> None:
    loglines.write(tmp_path, [LINES[0], b'{"pid":100,\n', b"\x00\xff\n", b'[{"pid":100}]\n', LINES[1]])
    search = asked(tmp_path, pids=(100,))
    assert numbers(every(search)) == [2]
    assert search.unreadable_lines == 2


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    loglines.write(tmp_path, [*LINES[:2], LINES[2][:-20]])
    assert numbers(every(asked(tmp_path))) == [1, 2]


def test_line_longer_than_any_the_monitor_writes_is_skipped_and_told(tmp_path: Path) -> None:
    long = b'{"x":"' + b"y" * (MAX_LINE_BYTES + (3 << 20)) + b'"}\n'
    loglines.write(tmp_path, [LINES[0], long, *LINES[1:3]])
    problems: list[Problem] = []
    assert numbers(every(asked(tmp_path, problems))) == [1, 2, 3]
    assert [problem.offset for problem in problems] == [len(LINES[0])]


def test_file_that_was_renamed_and_compressed_after_the_listing_is_still_read(tmp_path: Path) -> None:
    loglines.write(tmp_path, LINES)
    listed = files(tmp_path)[0]
    loglines.write(tmp_path, [gzip.compress(b"".join(LINES))], "events.jsonl.1.gz")
    (tmp_path / "events.jsonl").unlink()
    assert len(list(Scan(listed, _unexpected).lines())) == 12


@pytest.mark.parametrize("size", [1, 700, 10_000, 1 << 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_pieces_of_a_file_are_all_its_lines_once(tmp_path: Path, size: int, compressed: bool) -> None:
    lines = [line(number, path="/" + "x" * (number * 37 % 1500)) for number in range(2, 400)]
    loglines.write(tmp_path, lines)
    asking = asked(tmp_path)
    cut = asking.pieces(size)
    assert len(cut) == 1 if size >= 1 << 20 else len(cut) > 20
    if compressed:  # after the cutting
        (tmp_path / "events.jsonl.1.gz").write_bytes(gzip.compress(b"".join(lines)))
        (tmp_path / "events.jsonl").unlink()
    assert [found.raw + b"\n" for piece in cut for found in asking.of(piece)] == lines


def test_a_name_that_nearly_matches_many_wildcards_takes_no_ages(tmp_path: Path) -> None:
    loglines.write(tmp_path, [line(2, path="/x" + "a" * 4000 + "b"), line(3, path="/x" + "a" * 4000)])
    began = time.process_time()
    assert numbers(every(asked(tmp_path, paths=("/x*a*a*a*a*a*a",)))) == [3]
    assert time.process_time() - began < 1


def test_lines_across_blocks_are_whole(tmp_path: Path) -> None:
    padded = [line(number, path="/" + "x" * (number * 37 % 1500)) for number in range(2, 4000)]
    loglines.write(tmp_path, padded)
    assert [raw + b"\n" for raw in Scan(files(tmp_path)[0], _unexpected).lines()] == padded
    assert [
        raw + b"\n" for raw in Scan(files(tmp_path)[0], _unexpected).lines(((b'"pid":100',), (b"/xx", b"none")))
    ] == [raw for raw in padded if b"/xx" in raw]


# ---- the end of the log, and what comes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "wanted"), [(0, []), (1, [12]), (3, [10, 11, 12]), (5, [8, 9, 10, 11, 12]), (99, list(range(1, 13)))]
)
def test_last_lines_come_from_as_many_files_as_they_need(tmp_path: Path, count: int, wanted: list[int]) -> None:
    rotated(tmp_path)
    found, place = asked(tmp_path).last(count)
    assert numbers(found) == wanted
    assert place is not None
    assert (place[0].path.name, place[1]) == ("events.jsonl", (tmp_path / "events.jsonl").stat().st_size)


def test_last_matches_reach_back_over_lines_that_do_not_match(tmp_path: Path) -> None:
    rotated(tmp_path)
    assert numbers(asked(tmp_path, failed=True).last(2)[0]) == [3, 6]
    assert numbers(asked(tmp_path, failed=True).last(1)[0]) == [6]


def test_last_of_an_empty_directory_is_nothing(tmp_path: Path) -> None:
    assert asked(tmp_path).last(10) == ([], None)


def following(search: Search, place: Any, wanted: int, write: Callable[[], None]) -> list[int]:
    """What follow gives of what `write` writes meanwhile, up to a number of matches."""
    found: list[Found] = []
    deadline = time.monotonic() + 20
    writer = threading.Thread(target=write)
    writer.start()
    for one in search.follow(place, lambda: time.monotonic() > deadline):
        found.append(one)
        if len(found) == wanted:
            break
    writer.join()
    return numbers(found)


@pytest.mark.parametrize("conditions", [{}, {"events": ("file",)}])
def test_follow_goes_on_exactly_behind_the_last_lines(tmp_path: Path, conditions: dict[str, Any]) -> None:
    path = loglines.write(tmp_path, LINES[:2])
    search = asked(tmp_path, **conditions)
    _, place = search.last(10)

    def write() -> None:
        with path.open("ab") as opened:
            for raw in LINES[2:4]:
                opened.write(raw)
                opened.flush()

    assert following(search, place, 2, write) == [3, 4]


def test_follow_survives_a_rotation(tmp_path: Path) -> None:
    path = loglines.write(tmp_path, LINES[:2])
    search = asked(tmp_path)
    _, place = search.last(0)

    def write() -> None:
        with path.open("ab") as opened:
            opened.write(LINES[2])
        path.rename(tmp_path / "events.jsonl.1")
        loglines.write(tmp_path, LINES[3:5])

    assert following(search, place, 3, write) == [3, 4, 5]


def test_follow_of_a_directory_that_is_still_empty_waits_for_the_first_line(tmp_path: Path) -> None:
    search = asked(tmp_path)
    _, place = search.last(10)
    assert following(search, place, 2, lambda: loglines.write(tmp_path, LINES[:2]) and None) == [1, 2]


def test_a_search_for_events_alone_reads_no_document(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(search, "orjson", SimpleNamespace(loads=calls.append))
    monkeypatch.setattr(parts, "orjson", SimpleNamespace(loads=calls.append))
    assert len(list(every(asked(log, events=("file_open", "socket"))))) == 7
    assert calls == []
