from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.enrich import (
    HostFacts,
    HostFactsError,
    UserNames,
    container_id,
    entity_id,
    event_id,
    parse_name_file,
    systemd_unit,
)

A, B = "0123456789abcdef" * 4, "f" * 64
BOOT = "11111111-6bcd-4dc1-8a22-9d11172f4204"
MACHINE = "5d1219c7c4c5404aaa1f6d2a48adfda5"


class Seconds:
    """A monotonic clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_bytes(b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    group.write_bytes(b"root:x:0:\nstaff:x:50:ann\n")
    return passwd, group


# ----------------------------------------------------------------------------------------------------- users and groups


def test_ids_are_named_by_the_files(files: tuple[Path, Path], seconds: Seconds) -> None:
    users = UserNames(*files, seconds)
    assert [users.user(uid) for uid in (0, 1000, 50)] == ["root", "ann", None]
    assert [users.group(gid) for gid in (0, 50, 1000)] == ["root", "staff", None]
    assert (users.malformed, users.unreadable) == (0, 0)


def test_the_first_of_two_lines_with_one_id_counts() -> None:
    assert parse_name_file(b"root:x:0:\ntoor:x:0:\n") == ({0: "root"}, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"ann:x",
        b"ann:x:",
        b"ann:x:-1:",
        b"ann:x:1a:",
        b":x:5:",
        b"ann:x:4294967295:",
        b"ann:x: 5:",
        b"ann:x:\xd9\xa1:",
        b"ann:x:" + b"9" * 5000 + b":",
        b"\0\0\0",
    ],
)
def test_a_malformed_line_is_counted_and_hides_no_other(line: bytes) -> None:
    assert parse_name_file(b"root:x:0:\n" + line + b"\nbin:x:2:\n") == ({0: "root", 2: "bin"}, 1)


def test_comments_blank_lines_and_nis_lines_are_no_errors() -> None:
    assert parse_name_file(b"# users\n\n  \n+::::::\n-bob::::::\nroot:x:0:") == ({0: "root"}, 0)


def test_a_name_that_is_not_clean_text_is_shown_escaped() -> None:
    assert parse_name_file(b"b\xffd\x1b:x:7:\n") == ({7: r"b\xffd\x1b"}, 0)


@given(st.binary(max_size=200))
def test_no_content_of_a_name_file_raises(content: bytes) -> None:
    found, malformed = parse_name_file(content)
    assert len(found) + malformed <= content.count(b"\n") + 1


def test_a_changed_file_is_read_again_but_looked_at_once_a_second(files: tuple[Path, Path], seconds: Seconds) -> None:
    users = UserNames(*files, seconds)
    before = users.generation
    files[0].write_bytes(b"root:x:0:0::/:\nbob:x:1000:1000::/:\n")
    seconds.now += 0.9
    assert users.user(1000) == "ann"
    assert users.generation == before
    seconds.now += 0.2
    assert users.user(1000) == "bob"
    assert users.generation == before + 1


def test_a_replaced_file_of_equal_size_and_time_is_read_again(files: tuple[Path, Path], seconds: Seconds) -> None:
    users = UserNames(*files, seconds)
    status = files[0].stat()
    new = files[0].with_suffix(".new")
    new.write_bytes(files[0].read_bytes().replace(b"ann", b"bob"))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(files[0])
    seconds.now += 1
    assert users.user(1000) == "bob"


def test_an_untouched_file_is_not_read_again(
    files: tuple[Path, Path], seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = UserNames(*files, seconds)
    reads: list[int] = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: reads.append(fd) or real(fd, size))
    seconds.now += 10
    assert users.user(0) == "root"
    assert reads == []


def test_a_missing_file_means_no_names_and_its_return_brings_them_back(
    files: tuple[Path, Path], seconds: Seconds
) -> None:
    users = UserNames(*files, seconds)
    content = files[0].read_bytes()
    files[0].unlink()
    seconds.now += 1
    assert users.user(0) is None
    assert users.group(0) == "root"
    assert users.unreadable == 0
    files[0].write_bytes(content)
    seconds.now += 1
    assert users.user(0) == "root"


def test_no_files_at_all_are_no_error(tmp_path: Path, seconds: Seconds) -> None:
    users = UserNames(tmp_path / "a", tmp_path / "file" / "b", seconds)
    assert users.user(0) is None
    assert users.group(0) is None
    assert users.generation == 0


def test_something_unreadable_in_the_files_place_keeps_the_names_and_is_counted(
    files: tuple[Path, Path], seconds: Seconds
) -> None:
    users = UserNames(*files, seconds)
    files[0].unlink()
    os.mkfifo(files[0])  # a plain open would wait for a writer for ever
    seconds.now += 1
    assert users.user(1000) == "ann"
    assert users.unreadable == 1


# ------------------------------------------------------------------------------------------------- containers and units

PODS = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_3.slice"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/docker/{A}", A),
        (f"/docker/{A}/init.scope", A),
        (f"/system.slice/docker-{A}.scope", A),
        (f"/system.slice/docker-{A}.scope/system.slice/cron.service", A),
        (f"/../../system.slice/docker-{A}.scope", A),
        (f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{A}.scope", A),
        (f"/actions_job/{A}", A),
        (f"/ecs/0f3a/{A}", A),
        (f"{PODS}/cri-containerd-{A}.scope", A),
        (f"{PODS}/crio-{A}.scope", A),
        (f"{PODS}/crio-{A}.scope/container", A),
        (f"{PODS}/docker-{A}.scope", A),
        (f"/kubepods/besteffort/pod6b2b1bd8-6a6f-4a55-9ae0-000000000000/{A}", A),
        (f"/kubepods/pod{A}/{B}", B),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod12_3.slice:cri-containerd:{A}", A),
        (f"/k8s.io/{A}", A),
        (f"/system.slice/nerdctl-{A}.scope", A),
        (f"/machine.slice/libpod-{A}.scope", A),
        (f"/machine.slice/libpod-{A}.scope/container", A),
        (f"/machine.slice/libpod-{A}.scope/libpod-payload-{A}", A),
        (f"/system.slice/web.service/libpod-payload-{A}", A),
        (f"/libpod_parent/libpod-{A}", A),
        (f"/libpod_parent/{B}/libpod-{A}", A),
        (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", A),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container", A),
        (f"/docker/{A}/docker/{B}", A),
        (f"/docker/{A}/kubelet.slice/crio-{B}.scope", A),
        ("/lxc/web", "web"),
        ("/lxc/101/ns/system.slice/ssh.service", "101"),
        ("/lxc.payload/web", "web"),
        ("/lxc.payload.web", "web"),
        ("/lxc.payload.web/system.slice/cron.service", "web"),
        (f"/lxc.payload.web/docker/{A}", "web"),
        ("/machine.slice/machine-deb.scope", "deb"),
        ("/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", "my-box"),
        ("/machine.slice/systemd-nspawn@my\\x2dbox.service/payload", "my-box"),
        ("/garden/6b2b1bd8-6a6f-4a55-9ae0", "6b2b1bd8-6a6f-4a55-9ae0"),
        ("/system.slice/garden.service/garden/good/6b2b1bd8", "6b2b1bd8"),
    ],
)
def test_a_containers_cgroup_gives_its_id(path: str, expected: str) -> None:
    assert container_id(path.encode()) == expected.encode()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/init.scope",
        "/system.slice",
        "/system.slice/ssh.service",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/system.slice/system-getty.slice/getty@tty1.service",
        "/user.slice/user-1000.slice/session-2.scope",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-1234.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/machine-learning.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/lxc/notes",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/machine.slice",
        "/lxc",
        "/lxc.monitor.web",
        "/lxc.monitor/web",
        "/garden",
        f"/machine.slice/libpod-conmon-{A}.scope",
        f"{PODS}/crio-conmon-{A}.scope",
        f"/libpod_parent/{A}",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/{A}.service",
        f"/system.slice/var-lib-docker-overlay2-{A}-merged.mount",
        f"/system.slice/docker-{A[:63]}.scope",
        f"/system.slice/docker-{A}0.scope",
        f"/docker/{A.upper()}",
        f"/docker/{A[:-1]}g",
    ],
)
def test_what_is_not_in_a_container_has_no_container_id(path: str) -> None:
    assert container_id(path.encode()) is None


def test_a_container_name_is_any_bytes() -> None:
    assert container_id(b"/lxc.payload.w\xffb\x1b") == b"w\xffb\x1b"
    assert container_id(b"/machine.slice/machine-a\\x0ab.scope") == b"a\nb"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/init.scope", "init.scope"),
        ("/system.slice/ssh.service", "ssh.service"),
        ("/system.slice/ssh.service/worker", "ssh.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service", "user@1000.service"),
        (f"/system.slice/docker-{A}.scope/system.slice/inner.service", f"docker-{A}.scope"),
        ("/system.slice/_cgroup.x.service", "cgroup.x.service"),
        ("/system.slice/run-a\\x2db.mount", "run-a\\x2db.mount"),
        ("/", None),
        ("", None),
        ("/user.slice", None),
        (f"/docker/{A}", None),
        ("/system.slice/.service", None),
        (f"/docker/{A}/system.slice/inner.service", None),
    ],
)
def test_the_unit_is_the_system_managers(path: str, expected: str | None) -> None:
    assert systemd_unit(path.encode()) == (expected.encode() if expected else None)


@given(st.binary(max_size=120))
def test_no_cgroup_path_raises(path: bytes) -> None:
    for found in (container_id(path), systemd_unit(path)):
        assert found is None or found


# ----------------------------------------------------------------------------------------------------------- identities


def test_the_entity_id_is_the_documented_hash() -> None:
    parts = (MACHINE.encode(), BOOT.encode(), (4711).to_bytes(8, "big"), (81_234_567_890_123).to_bytes(8, "big"))
    encoded = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = hashlib.blake2b(encoded, digest_size=16, person=b"ebpf.entity.v1").digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert entity_id(MACHINE, BOOT, 4711, 81_234_567_890_123) == expected
    assert len(expected) == 22


def test_the_entity_id_never_changes_between_versions() -> None:
    # Stored documents refer to each other by it: a change here is a new schema.
    assert entity_id(MACHINE, BOOT, 1, 25_000_000) == "V3QiUPhF2XEK3yDm5MMuIw"


IDENTITY = st.tuples(
    st.text(max_size=8), st.text(max_size=8), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
)


@given(IDENTITY, IDENTITY)
def test_different_processes_have_different_entity_ids(
    one: tuple[str, str, int, int], other: tuple[str, str, int, int]
) -> None:
    assert (entity_id(*one) == entity_id(*other)) == (one == other)


def test_parts_of_an_entity_cannot_run_into_each_other() -> None:
    assert entity_id("ab", "c", 1, 1) != entity_id("a", "bc", 1, 1)


def test_a_reused_pid_is_another_entity_even_a_nanosecond_later() -> None:
    assert entity_id(MACHINE, BOOT, 7, 1000) != entity_id(MACHINE, BOOT, 7, 1001)


def test_no_entity_id_comes_again_over_a_hundred_boots(tmp_path: Path) -> None:
    """The same host, the same pids, started at the same time after the boot."""
    for name in ("proc/sys/kernel/random", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text(MACHINE + "\n")
    ids, hosts = set(), set()
    for _ in range(100):
        (tmp_path / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        facts = HostFacts.read(tmp_path)
        hosts.add((facts.id, facts.agent_id))
        ids |= {entity_id(facts.id, facts.boot_id, pid, start) for pid in (1, 2, 4711) for start in (0, 25_000_000)}
    assert len(ids) == 100 * 6
    assert len(hosts) == 1


def test_the_entity_id_is_the_same_in_another_process() -> None:
    program = f"from monitor.enrich import entity_id; print(entity_id({MACHINE!r}, {BOOT!r}, 9, 5))"
    root = Path(__file__).resolve().parent.parent
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == entity_id(MACHINE, BOOT, 9, 5)


def test_event_ids_have_fixed_width_and_sort_by_sequence() -> None:
    assert event_id("a1b2c3d4", "00112233aabbccdd", 42) == "a1b2c3d4-00112233aabbccdd-00000000002a"
    ids = [event_id("a1b2c3d4", "00112233aabbccdd", n) for n in (1, 9, 10, 16, 255, 1 << 40, (1 << 48) - 1)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {38}


@pytest.mark.parametrize(
    ("host", "epoch", "sequence"),
    [("a1b2c3d", "0" * 16, 1), ("a1b2c3d4", "0" * 15, 1), ("a1b2c3d4", "0" * 16, -1), ("a1b2c3d4", "0" * 16, 1 << 48)],
)
def test_what_would_break_the_width_of_an_event_id_is_refused(host: str, epoch: str, sequence: int) -> None:
    with pytest.raises(ValueError, match="not parts of an event id"):
        event_id(host, epoch, sequence)


# ----------------------------------------------------------------------------------------------------------------- host


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "proc/sys/kernel/random/boot_id", BOOT + "\n")
    put(tmp_path, "proc/sys/kernel/hostname", "web1\n")
    put(tmp_path, "etc/machine-id", MACHINE + "\n")
    return tmp_path


def test_host_facts_come_from_the_kernel_and_the_machine_id(root: Path) -> None:
    facts = HostFacts.read(root)
    agent = hashlib.blake2b(MACHINE.encode(), digest_size=4, person=b"ebpf.agent.v1").hexdigest()
    assert facts == HostFacts(id=MACHINE, id_source="machine-id", name="web1", boot_id=BOOT, agent_id=agent)
    assert event_id(facts.agent_id, "0" * 16, 1).startswith(agent)
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "content", ["", "uninitialized\n", "0" * 32 + "\n", MACHINE.upper(), MACHINE[:31], MACHINE + "0", b"\xff" * 32]
)
def test_a_machine_id_that_is_none_falls_back_to_dbus_then_firmware_then_boot(root: Path, content: str | bytes) -> None:
    put(root, "etc/machine-id", content)
    by_boot = HostFacts.read(root)
    put(root, "sys/class/dmi/id/product_uuid", "4c4c4544-0042\n")
    by_firmware = HostFacts.read(root)
    put(root, "var/lib/dbus/machine-id", MACHINE + "\n")
    by_dbus = HostFacts.read(root)
    assert [facts.id_source for facts in (by_boot, by_firmware, by_dbus)] == ["boot", "dmi", "machine-id"]
    assert by_dbus.id == MACHINE
    assert len({by_boot.id, by_firmware.id, by_dbus.id}) == 3
    assert all(len(facts.id) == 32 and int(facts.id, 16) for facts in (by_boot, by_firmware))


def test_the_firmware_id_outlives_a_boot(root: Path) -> None:
    (root / "etc/machine-id").unlink()
    put(root, "sys/class/dmi/id/product_serial", "S1\n")
    before = HostFacts.read(root)
    put(root, "proc/sys/kernel/random/boot_id", BOOT.replace("1", "2") + "\n")
    after = HostFacts.read(root)
    assert (before.id, before.agent_id) == (after.id, after.agent_id)
    assert before.boot_id != after.boot_id


@pytest.mark.parametrize("content", [None, "", "not-a-uuid\n"])
def test_a_host_without_boot_id_is_an_error_that_names_the_file(root: Path, content: str | None) -> None:
    if content is None:
        (root / "proc/sys/kernel/random/boot_id").unlink()
    else:
        put(root, "proc/sys/kernel/random/boot_id", content)
    with pytest.raises(HostFactsError, match="random/boot_id"):
        HostFacts.read(root)


def test_a_host_name_is_always_there_and_clean(root: Path) -> None:
    put(root, "proc/sys/kernel/hostname", b"w\x1bb\xff\n")
    assert HostFacts.read(root).name == r"w\x1bb\xff"
    (root / "proc/sys/kernel/hostname").unlink()
    put(root, "etc/hostname", "fallback\n")
    assert HostFacts.read(root).name == "fallback"
    (root / "etc/hostname").unlink()
    assert HostFacts.read(root).name == "localhost"


def test_this_machine_has_facts() -> None:
    facts = HostFacts.read()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.name == os.uname().nodename
    assert len(facts.id) == 32
    assert len(facts.agent_id) == 8
