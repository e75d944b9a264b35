"""What the service manager is told, over a real socket, and when a part counts as hanging."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from monitor import notify
from monitor.notify import Notifier, Progress, Service, Watchdog

FINE = Progress(cut=1, received=1, idle=False, logged=10, durable=10)


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """The messages since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found

    def notifier(self, **more: str) -> Notifier:
        return Notifier({"NOTIFY_SOCKET": self.address, **more})


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@ebpf-monitor-test-{os.getpid()}")
    yield made
    made.socket.close()


@pytest.fixture
def caused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often an event was caused."""
    times: list[int] = []
    monkeypatch.setattr(notify, "cause_event", lambda: times.append(1))
    return times


def test_a_message_is_lines_of_variables_and_no_value_breaks_one(manager: Manager) -> None:
    manager.notifier().send(READY="1", STATUS="a\nREADY=0")
    assert manager.heard() == ["READY=1\nSTATUS=a READY=0\n"]


def test_the_variables_are_not_left_to_children(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "PATH": "/bin"}
    assert Notifier(environment).watchdog_s == 4
    assert environment == {"PATH": "/bin"}


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Notifier({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert Notifier({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 4


def test_without_a_manager_nothing_is_due_and_a_lost_one_is_no_error(tmp_path: Path) -> None:
    service = Service(Notifier({}), 1)
    assert service.ready
    assert not service.due(1e9)
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).send(READY="1")


def test_ready_once_an_event_of_the_kernel_is_durable(manager: Manager, caused: list[int]) -> None:
    service = Service(manager.notifier(), 1)
    service.turn(0.0, replace(FINE, received=0, logged=5, durable=5), "s")  # only documents of the monitor itself
    assert not service.ready
    assert caused == [1]
    service.turn(0.1, replace(FINE, received=0, logged=5, durable=5), "s")
    assert caused == [1]  # not in every turn
    service.turn(0.6, replace(FINE, received=0, logged=5, durable=5), "s")
    assert caused == [1, 1]
    service.turn(0.7, replace(FINE, logged=7, durable=6), "s")
    service.turn(0.8, replace(FINE, logged=90, durable=6), "s")
    assert not any("READY=1" in text for text in manager.heard())
    service.turn(0.9, replace(FINE, logged=99, durable=7), "s")  # under load the last line is never durable
    assert service.ready
    assert "READY=1\nSTATUS=s\n" in manager.heard()
    assert caused == [1, 1]


def test_the_watchdog_is_fed_four_times_within_its_time(manager: Manager) -> None:
    service = Service(manager.notifier(WATCHDOG_USEC="8000000"), 1)
    for tenth in range(80):
        now = tenth / 10
        if service.due(now):
            service.turn(now, replace(FINE, cut=tenth + 2, idle=True), "s")
    assert manager.heard().count("WATCHDOG=1\n") == 4


def test_the_watchdog_is_not_fed_and_the_status_says_which_part_hangs(manager: Manager) -> None:
    service = Service(manager.notifier(WATCHDOG_USEC="8000000"), 1)
    service.turn(0.0, FINE, "s")
    manager.heard()
    service.turn(6.0, replace(FINE, received=2), "s")
    assert manager.heard() == ["STATUS=The reader hangs. s\n"]


@pytest.mark.parametrize(
    ("part", "later"),
    [
        ("reader", lambda seen, _: replace(seen, received=2)),
        ("encoder", lambda seen, turn: replace(seen, cut=1 + turn)),
        ("writer", lambda seen, turn: replace(seen, cut=1 + turn, received=1 + turn, logged=10 + turn)),
    ],
)
def test_each_part_that_stands_still_is_named(part: str, later: Callable[[Progress, int], Progress]) -> None:
    watchdog = Watchdog(patience_s=5)
    assert watchdog.hanging(0, replace(FINE, logged=11)) == ""
    found = [watchdog.hanging(2.0 * turn, later(replace(FINE, logged=11), turn)) for turn in range(1, 5)]
    assert found[-1] == part
    assert set(found) <= {"", part}


def test_a_calm_host_and_a_full_disk_are_no_hanging() -> None:
    watchdog = Watchdog(patience_s=5)
    for turn in range(20):
        assert watchdog.hanging(2.0 * turn, replace(FINE, cut=1 + turn, idle=True)) == ""
    for turn in range(20):
        assert watchdog.hanging(100 + 2.0 * turn, replace(FINE, logged=50, told=True)) == ""


def test_under_load_the_writer_may_stay_behind_but_must_advance() -> None:
    watchdog = Watchdog(patience_s=5)
    for turn in range(50):
        seen = replace(FINE, cut=1 + turn, received=1 + turn, logged=1000 * turn + 500, durable=1000 * turn)
        assert watchdog.hanging(2.0 * turn, seen) == ""


def test_a_reload_is_begun_and_ended(manager: Manager, caused: list[int]) -> None:
    service = Service(manager.notifier(), 1)
    service.reloading()
    service.reloaded()
    (begun,) = manager.heard()  # not ready yet: READY=1 would be a lie
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
    service.turn(0.0, FINE, "s")
    assert not caused
    manager.heard()
    service.reloading()
    service.reloaded()
    assert manager.heard()[1] == "READY=1\n"


def test_the_end_is_told(manager: Manager) -> None:
    Service(manager.notifier(), 1).stopping("draining")
    assert manager.heard() == ["STOPPING=1\nSTATUS=draining\n"]


def test_a_caused_event_is_a_process_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    spawn = os.posix_spawn
    monkeypatch.setattr(os, "posix_spawn", lambda *given: made.append(spawn(*given)) or made[-1])
    notify.cause_event()
    (child,) = made
    with pytest.raises(ChildProcessError):  # nobody's child any more; other tests may have children of their own
        os.waitpid(child, os.WNOHANG)
