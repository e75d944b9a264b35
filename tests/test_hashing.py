"""Hashes off the hot path: the cache, the proof of the version, what is skipped and counted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import decode, hashing
from monitor.hashing import Asker, Hasher, Version
from tests.fakes import context, control, facts, spelled

EXT4 = 0xEF53


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    made = Hasher(1 << 20)
    yield made
    made.close()


def version_of(path: Path, **changes: int) -> Version:
    about = path.stat()
    known = {
        "device": os.major(about.st_dev) << 20 | os.minor(about.st_dev),
        "inode": about.st_ino,
        "ctime_ns": about.st_ctime_ns,
        "size": about.st_size,
    }
    return Version(**(known | changes))


def raw(
    path: Path, version: Version, name: str = "process_exec", magic: int = EXT4, ret: int = 0, pid: int = 4_000_000
) -> bytes:
    about = context(
        exe_dev=version.device,
        exe_ino=version.inode,
        exe_ctime=version.ctime_ns // 10**9,
        exe_ctime_nsec=version.ctime_ns % 10**9 | 0x80000000,
        exe_size=version.size,
        exe_magic=magic,
    )
    blobs = {"executable": spelled(os.fsencode(path)), "context": about, "args": b"x\0"}
    return control(name, blobs, **(facts(tgid=pid, tid=pid) | {"ret": ret}))


def answer(hasher: Hasher) -> hashing.Answer:
    deadline = time.monotonic() + 30
    while (found := hasher.answer()) is None:
        assert time.monotonic() < deadline, hasher.status()
        time.sleep(0.005)
    return found


def settled(hasher: Hasher) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while not hasher.idle:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return {reason: count for reason, count in hasher.skipped.items() if count}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    made = tmp_path / "program"
    made.write_bytes(b"\x7fELF" * 100_000)
    return made


@pytest.fixture
def old(program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose last change is long ago enough to be kept in the cache."""
    monkeypatch.setattr(hashing, "_YOUNG_NS", -1)
    return program


def test_the_first_process_gets_an_answer_the_next_one_the_hash_at_once(hasher: Hasher, old: Path) -> None:
    version, digest = version_of(old), hashlib.sha256(old.read_bytes()).hexdigest()
    first = raw(old, version)
    assert hasher.record(first) is first
    late = answer(hasher)
    assert (late.sha256, late.version, late.asker.path) == (digest, version, os.fsencode(old))
    again = decode.control(hasher.record(first))
    assert again.blobs == decode.control(first).blobs | {"sha256": bytes.fromhex(digest)}
    assert hasher.status() == {"known": 1, "computed": 1, "skipped": dict.fromkeys(hashing.REASONS, 0)}


def test_each_process_that_waits_gets_its_own_answer(hasher: Hasher, program: Path) -> None:
    os.mkfifo(program.parent / "fifo")
    for pid in (4_000_001, 4_000_002, 4_000_003):
        hasher.record(raw(program, version_of(program), pid=pid))
    assert {answer(hasher).asker.pid for _ in range(3)} == {4_000_001, 4_000_002, 4_000_003}


def test_a_file_that_was_changed_a_moment_ago_is_read_again(hasher: Hasher, program: Path) -> None:
    os.utime(program)
    one = raw(program, version_of(program))
    hasher.record(one)
    answer(hasher)
    assert hasher.record(one) is one
    answer(hasher)
    assert hasher.computed == 2


@pytest.mark.parametrize("change", [{"ctime_ns": 1}, {"size": 5}, {"inode": 1}, {"device": 7 << 20}])
def test_another_version_at_the_same_path_is_not_taken_for_it(
    hasher: Hasher, program: Path, change: dict[str, int]
) -> None:
    hasher.record(raw(program, version_of(program, **change)))
    assert settled(hasher) == {"gone": 1}


def test_what_is_skipped_is_counted_by_its_reason(hasher: Hasher, program: Path, tmp_path: Path) -> None:
    version = version_of(program)
    hasher.record(raw(program, version, magic=0x65735546))
    hasher.record(raw(program, version_of(program, size=1 << 20 | 1)))
    hasher.record(raw(tmp_path / "not there", version))
    hasher.record(raw(tmp_path, version_of(tmp_path)))
    assert settled(hasher) == {"remote": 1, "too_large": 1, "gone": 2}


def test_a_fifo_in_the_files_place_stops_nothing(hasher: Hasher, program: Path) -> None:
    version = version_of(program)
    program.unlink()
    os.mkfifo(program)
    hasher.record(raw(program, version))
    assert settled(hasher) == {"gone": 1}


def test_a_change_while_it_is_read_is_no_hash(program: Path) -> None:
    version = version_of(program)
    found: list[str] = []

    def stop() -> bool:
        if not found:
            program.chmod(0o600)
            found.append("changed")
        return False

    with pytest.raises(hashing._OtherError, match="changed"):
        hashing._digest(os.fsencode(program), version, EXT4, by_link=False, stop=stop)


def test_the_running_file_is_read_through_the_process_when_its_name_is_gone(hasher: Hasher, tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as child:
        program.unlink()
        about = os.stat(f"/proc/{child.pid}/exe")
        device = os.major(about.st_dev) << 20 | os.minor(about.st_dev)
        version = Version(device, about.st_ino, about.st_ctime_ns, about.st_size)
        hasher.record(raw(program, version, pid=child.pid))
        assert answer(hasher).sha256 == hashlib.sha256(Path("/bin/sleep").read_bytes()).hexdigest()
        child.kill()


def test_too_many_who_wait_are_counted(hasher: Hasher, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_WAITERS", 2)
    version = version_of(program)
    hasher._waiting[version] = [Asker(1, 1, b"/x", EXT4)] * 2
    hasher.record(raw(program, version))
    assert hasher.skipped["busy"] == 1
    del hasher._waiting[version]


def test_records_without_a_program_stand_as_they_are(hasher: Hasher, program: Path) -> None:
    version = version_of(program)
    failed = raw(program, version, ret=-13)
    plain = control("process_exec", {"executable": b"x\0"}, **facts())
    for one in (failed, plain, control("process_exit", {}, **facts()), b"", plain[:-3]):
        assert hasher.record(one) is one
    assert hasher.idle
