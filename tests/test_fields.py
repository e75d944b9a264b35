"""The fields of each event are those that its declaration gives, with one type each."""

from __future__ import annotations

import pytest

from monitor import events, fields


def test_two_declarations_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMON", (*events.COMMON, events.Shown("ebpf.ret", "keyword", "another type")))
    with pytest.raises(ValueError, match=r"ebpf\.ret"):
        fields.all_paths()


def test_fields_are_those_that_an_event_can_have() -> None:
    delete, exit_, start, failed = (
        fields.paths(events.EVENT[name]) for name in ("file_delete", "process_exit", "monitor_start", "socket_bind")
    )
    assert {"file.path", "file.inode", "ebpf.claimed", "error.code"} <= set(delete)
    assert "file.path" not in failed
    assert not {"error.code", "ebpf.syscall", "file.path", "ebpf.fd"} & set(exit_)
    assert not {"event.outcome", "process.pid", "ebpf.cpu"} & set(start)
    assert "ebpf.login.uid" not in fields.paths(events.EVENT["file_read"])
