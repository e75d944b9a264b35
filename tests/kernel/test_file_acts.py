"""Acts on files that are neither opened, read nor written: links, directories, modes, owners, lengths, attributes, memory files.

Known acts through every system call, exactly these documents. What a document says of a file that has a descriptor is
compared with what the kernel says of that descriptor.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.acts import AT_FDCWD, Call, Script
from tests.kernel.monitor_process import Document, MonitorProcess, name_of

pytestmark = pytest.mark.parametrize(
    "running",
    [{"profile": "full"}, {"profile": "full", "environment": {"EBPF_MONITOR_NO_CASTS": "1"}}],
    indirect=True,
    ids=["casts", "helpers"],
)
PRIME = 7
AT_REMOVEDIR = 0x200
Wanted = tuple[str, Call, str]


def acts(found: list[Document]) -> list[Document]:
    """All but the opens and closes that a script needs for its descriptors."""
    return [one for one in found if name_of(one) not in ("file_open", "file_close")]


def told(one: Document) -> tuple[str, str, int, str | None, str | None]:
    return (
        name_of(one),
        one["ebpf"]["syscall"],
        one["ebpf"]["ret"],
        one.get("error", {}).get("code"),
        one.get("file", {}).get("path"),
    )


def check(found: list[Document], wanted: list[Wanted]) -> None:
    assert [told(one) for one in found] == [(event, act.name, act.ret, act.error, path) for event, act, path in wanted]
    for one in found:
        named = one["ebpf"]["path_source"] != "caller"
        assert ("claimed" in one["ebpf"]) is not named
        assert one["event"]["outcome"] == ("failure" if "error" in one else "success")


def test_names_are_made_and_removed(monitor: MonitorProcess, script: Script, place: Path) -> None:
    script.call("chdir", script.text(place))
    top = script.call("open", script.text(place), os.O_RDONLY | os.O_DIRECTORY)
    wanted: list[Wanted] = []
    for i in range(PRIME):
        d, e = script.text(f"d{i}"), script.text(f"e{i}")
        s, t = script.text(f"s{i}"), script.text(f"t{i}")
        f, g = script.text(f"f{i}"), script.text(f"g{i}")
        script.call("close", script.call("creat", f, 0o600))
        wanted += [
            ("file_mkdir", script.call("mkdir", d, 0o750), f"{place}/d{i}"),
            ("file_mkdir", script.call("mkdirat", top, e, 0o700), f"{place}/e{i}"),
            ("file_mkdir", script.call("mkdir", d, 0o750), f"{place}/d{i}"),
            ("file_symlink", script.call("symlink", f, s), f"{place}/s{i}"),
            ("file_symlink", script.call("symlinkat", script.text("/a/b"), top, t), f"{place}/t{i}"),
            ("file_link", script.call("link", f, g), f"{place}/g{i}"),
            ("file_link", script.call("linkat", top, f, AT_FDCWD, script.text(place / f"h{i}"), 0), f"{place}/h{i}"),
            ("file_link", script.call("link", script.text("none"), g), f"{place}/g{i}"),
            ("file_rmdir", script.call("rmdir", d), f"{place}/d{i}"),
            ("file_rmdir", script.call("unlinkat", top, e, AT_REMOVEDIR), f"{place}/e{i}"),
            ("file_rmdir", script.call("rmdir", d), f"{place}/d{i}"),
            ("file_delete", script.call("unlinkat", top, s, 0), f"{place}/s{i}"),
        ]
    found = acts(monitor.program(script.run()))
    check(found, wanted)
    assert {act.error for _, act, _ in wanted} == {None, "EEXIST", "ENOENT"}
    turn = found[:12]
    assert [one["event"]["type"] for one in turn[:3]] == [["creation"], ["creation"], ["info"]]
    assert [one["ebpf"]["requested"] for one in turn[:3]] == [{"mode": "0750"}, {"mode": "0700"}, {"mode": "0750"}]
    assert [one["file"]["target_path"] for one in turn[3:5]] == ["f0", "/a/b"]
    assert [one["file"]["Ext"]["original"]["path"] for one in turn[5:8]] == [
        f"{place}/f0",
        f"{place}/f0",
        f"{place}/none",
    ]
    assert [one["event"]["action"] for one in turn] == [
        *["creation"] * 3, "symlink", "symlink", "link", "link", "link", *["deletion"] * 4
    ]  # fmt: skip


def test_modes_owners_lengths_and_attributes_by_name(monitor: MonitorProcess, script: Script, place: Path) -> None:
    (place / "f").write_bytes(b"x" * 100)
    top = script.call("open", script.text(place), os.O_RDONLY | os.O_DIRECTORY)
    f, bare, missing = script.text(place / "f"), script.text("f"), script.text(place / "missing")
    attribute, value = script.text("user.ebpf"), script.data(b"12345")
    path, gone = f"{place}/f", f"{place}/missing"
    made: list[tuple[str, Call, str, Any]] = []
    for _ in range(PRIME):
        made += [
            ("file_mode", script.call("chmod", f, 0o4711), path, {"mode": "4711"}),
            ("file_mode", script.call("fchmodat", top, bare, 0o640), path, {"mode": "0640"}),
            ("file_mode", script.call("fchmodat2", top, bare, 0o600, 0), path, {"mode": "0600"}),
            ("file_mode", script.call("chmod", missing, 0o7777), gone, {"mode": "7777"}),
            ("file_owner", script.call("chown", f, 1234, 4321), path, {"uid": "1234", "gid": "4321"}),
            ("file_owner", script.call("lchown", f, -1, 77), path, {"gid": "77"}),
            ("file_owner", script.call("fchownat", top, bare, 0, -1, 0), path, {"uid": "0"}),
            ("file_owner", script.call("chown", f, -1, -1), path, None),
            ("file_truncate", script.call("truncate", f, 1 << 33), path, {"size": 1 << 33}),
            ("file_truncate", script.call("truncate", f, -1), path, {"size": -1}),
            ("file_xattr", script.call("setxattr", f, attribute, value, 5, 0), path, None),
            ("file_xattr", script.call("lsetxattr", f, attribute, value, 4, 0), path, None),
            ("file_xattr", script.call("setxattrat", top, bare, 0, attribute, script.words(value, 5), 16), path, None),
            ("file_xattr", script.call("removexattrat", top, bare, 0, attribute), path, None),
            ("file_xattr", script.call("lsetxattr", f, attribute, value, 3, 0), path, None),
            ("file_xattr", script.call("removexattr", f, attribute), path, None),
            ("file_xattr", script.call("lremovexattr", f, attribute), path, None),
        ]
    found = acts(monitor.program(script.run()))
    check(found, [(event, act, where) for event, act, where, _ in made])
    assert [one["ebpf"].get("requested") for one in found] == [asked for *_, asked in made]
    sizes = [one["ebpf"]["xattr"] for one in found if name_of(one) == "file_xattr"]
    name = {"name": "user.ebpf"}
    assert sizes == [name | {"size": 5}, name | {"size": 4}, name, name, name | {"size": 3}, name, name] * PRIME


def test_acts_on_a_descriptor_show_what_the_kernel_says_of_it(
    monitor: MonitorProcess, script: Script, place: Path
) -> None:
    (place / "f").write_bytes(b"x" * 100)
    opened = script.call("open", script.text(place / "f"), os.O_RDWR)
    script.call("rename", script.text(place / "f"), script.text(place / "renamed"))
    attribute, value = script.text("user.ebpf"), script.data(b"12345")
    made: list[tuple[str, Call, int]] = []
    for i in range(PRIME):
        for event, act in (
            ("file_mode", script.call("fchmod", opened, 0o4700 + i)),
            ("file_owner", script.call("fchown", opened, 1000 + i, 2000)),
            ("file_truncate", script.call("ftruncate", opened, 1000 * i)),
            ("file_xattr", script.call("fsetxattr", opened, attribute, value, 5, 0)),
            ("file_xattr", script.call("fremovexattr", opened, attribute)),
            ("file_xattr", script.call("fremovexattr", opened, attribute)),
        ):
            made.append((event, act, script.stat(opened)))
    bad = script.call("fchmod", 999, 0o600)
    found = acts(monitor.program(script.run()))[1:]
    check(found[:-1], [(event, act, f"{place}/renamed") for event, act, _ in made])
    for one, (_, _, about) in zip(found, made, strict=False):
        assert (one["file"]["inode"], one["file"]["device"]) == script.stated(about)[:2]
        assert one["ebpf"]["path_source"] == "file"
        assert one["ebpf"]["fd"] == opened.ret
    modes = [one for one in found[:-1] if name_of(one) == "file_mode"]
    assert [one["file"]["mode"] for one in modes] == [f"47{i:02o}" for i in range(PRIME)]
    assert told(found[-1]) == ("file_mode", "fchmod", bad.ret, "EBADF", None)
    assert found[-1]["ebpf"]["fd"] == 999


def test_files_of_memory(monitor: MonitorProcess, script: Script) -> None:
    name = script.text(b"pay\xffload")
    made = [script.call("memfd_create", name, 1) for _ in range(PRIME)]
    abouts = [script.stat(one) for one in made]
    script.call("memfd_create", name, 1 << 20)
    found = acts(monitor.program(script.run()))
    assert len(found) == PRIME + 1
    for one, act, about in zip(found, made, abouts, strict=False):
        assert (one["file"]["inode"], one["file"]["device"], one["file"]["mode"]) == script.stated(about)
        assert one["ebpf"]["fd"] == act.ret
    assert {one["file"]["path"] for one in found} == {"memfd:pay\\xffload"}
    assert {one["ebpf"]["path_source"] for one in found[:-1]} == {"file"}
    assert found[-1]["ebpf"]["claimed"] is True
    assert found[-1]["error"]["code"] == "EINVAL"


def test_the_32_bit_entry_shows_the_same_acts(monitor: MonitorProcess, script: Script, place: Path) -> None:
    script.call("chdir", script.text(place))
    f, g, d = script.text("f"), script.text("g"), script.text("d")
    opened = script.call("creat", f, 0o600)
    wanted = [
        ("file_mkdir", script.call32("mkdir", d, 0o700), "d"),
        ("file_rmdir", script.call32("rmdir", d), "d"),
        ("file_link", script.call32("link", f, g), "g"),
        ("file_symlink", script.call32("symlink", f, d), "d"),
        ("file_mode", script.call32("chmod", f, 0o640), "f"),
        ("file_mode", script.call32("fchmod", opened, 0o600), "f"),
        ("file_owner", script.call32("chown32", f, 70000, -1), "f"),
        ("file_owner", script.call32("chown", f, 0xFFFF, 12), "f"),
        ("file_owner", script.call32("fchown32", opened, 0, 0), "f"),
        ("file_truncate", script.call32("truncate", f, 5), "f"),
        ("file_truncate", script.call32("truncate64", f, 5, 1), "f"),
        ("file_truncate", script.call32("ftruncate64", opened, 6, 1), "f"),
        ("file_memfd", script.call32("memfd_create", f, 0), ""),
    ]
    found = acts(monitor.program(script.run()))
    check(found, [(event, act, f"{place}/{path}" if path else "memfd:f") for event, act, path in wanted])
    asked = [one["ebpf"].get("requested") for one in found]
    assert asked[6:12] == [
        {"uid": "70000"}, {"gid": "12"}, {"uid": "0", "gid": "0"}, {"size": 5}, {"size": 5 | 1 << 32}, {"size": 6 | 1 << 32}
    ]  # fmt: skip
