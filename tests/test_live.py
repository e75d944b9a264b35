"""The configuration followed: however a file is saved it is read once, whole and at rest; what may change is a declaration."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitor import config, live
from monitor.config import ConfigError, Loaded, Sources
from monitor.config_keys import KEYS, Config, EsConfig
from monitor.live import Follower
from monitor.ship import standalone
from monitor.voice import Voice

Save = Callable[[Path, str], None]


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def in_pieces(path: Path, text: str) -> None:
    """As a slow editor does: empty first, then part by part."""
    with path.open("w") as file:
        for piece in (text[:5], text[5:9], text[9:]):
            file.flush()
            time.sleep(0.1)
            file.write(piece)


def renamed_over(path: Path, text: str) -> None:
    fresh = path.with_name(".config.json.tmp")
    fresh.write_text(text)
    fresh.replace(path)


def by_backup(path: Path, text: str) -> None:
    """As vim does with `backupcopy=no`: the old file moves away, another is written in its place."""
    swap = path.with_name(".config.json.swp")
    swap.write_bytes(b"b0VIM")
    path.rename(path.with_name("config.json~"))
    time.sleep(0.1)
    path.write_text(text)
    path.with_name("config.json~").unlink()
    swap.unlink()


def link_swapped(path: Path, text: str) -> None:
    """As a mounted ConfigMap does: the name leads through a directory link that is exchanged as a whole."""
    version = path.parent / f"..{time.monotonic_ns()}"
    version.mkdir()
    (version / "config.json").write_text(text)
    fresh = path.parent / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to("..data/config.json")


SAVES: tuple[Save, ...] = (in_place, in_pieces, renamed_over, by_backup, link_swapped)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    made = tmp_path / "etc" / "config.json"
    made.write_text('{"profile": "full"}')
    return made


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    made = Follower(Sources(path, path.parent / "conf.d"), pytest.fail)
    assert isinstance(wait(made), Loaded), (
        "the first look reads the files: they may have changed since they were loaded"
    )
    yield made
    made.close()


def wait(follower: Follower, seconds: float = 30.0) -> Loaded | ConfigError | None:
    """What the follower finds, or None after so long; asks it as often as the loop does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = follower.look(time.monotonic())
        if found is not None:
            return found
        time.sleep(0.004)
    return None


def profile(found: Loaded | ConfigError | None) -> str:
    assert isinstance(found, Loaded), found
    return found.config.profile


@pytest.mark.parametrize("save", SAVES)
def test_a_saved_file_is_read_once_and_whole_however_it_is_saved(
    follower: Follower, path: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 1e6)  # only the bell counts here
    for wanted in ("minimal", "standard"):
        writer = threading.Thread(target=save, args=(path, f'{{"profile": "{wanted}"}}'))
        writer.start()
        assert profile(wait(follower)) == wanted
        writer.join()
    assert wait(follower, 1.0) is None


def test_a_link_to_another_directory_is_followed_where_it_leads(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("blue", "green"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.json").write_text('{"profile": "trace"}' if name == "green" else "{}")
    (tmp_path / "current").symlink_to("blue")
    path.unlink()
    path.symlink_to(tmp_path / "current" / "c.json")
    follower = Follower(Sources(path, path.parent / "conf.d"), pytest.fail)
    assert profile(wait(follower)) == "standard"
    monkeypatch.setattr(live, "LOOK_S", 1e6)
    follower._next = 1e12
    (tmp_path / "new").symlink_to("green")
    (tmp_path / "new").replace(tmp_path / "current")
    assert profile(wait(follower)) == "trace"
    follower._next = 1e12
    (tmp_path / "green" / "c.json").write_text('{"profile": "minimal"}')
    assert profile(wait(follower)) == "minimal"
    follower.close()


def test_drop_ins_that_come_change_and_go_are_seen(
    follower: Follower, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 1e6)
    (path.parent / "conf.d").mkdir()
    one = path.parent / "conf.d" / "10.json"
    for text, wanted in (('{"profile": "trace"}', "trace"), ('{"profile": "minimal"}', "minimal")):
        one.write_text(text)
        found = wait(follower)
        while profile(found) != wanted:  # the empty directory is a change of its own
            found = wait(follower)
    one.unlink()
    assert profile(wait(follower)) == "full"


def test_without_a_bell_a_change_is_seen_by_looking(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def refuse(_: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("watchdog.observers.api.BaseObserver.start", refuse)
    monkeypatch.setattr(live, "LOOK_S", 0.5)
    follower = Follower(Sources(path, path.parent / "conf.d"), said.append)
    assert profile(wait(follower)) == "full"
    renamed_over(path, '{"profile": "minimal"}')
    assert profile(wait(follower)) == "minimal"
    assert len(said) == 1
    assert "watching fails: Too many open files" in said[0]
    follower.close()


def test_a_bad_file_is_told_once_and_a_missing_one_after_a_while(follower: Follower, path: Path) -> None:
    path.write_text('{"profile": "ful"}')
    found = wait(follower)
    assert isinstance(found, ConfigError)
    assert "did you mean full?" in str(found)
    assert wait(follower, 1.0) is None
    began = time.monotonic()
    path.unlink()
    found = wait(follower)
    assert "no such file" in str(found)
    assert time.monotonic() - began >= live.GAP_S


def test_after_a_hangup_the_same_files_are_read_again(follower: Follower) -> None:
    follower.again()
    assert profile(wait(follower)) == "full"


def test_a_file_that_is_still_being_written_is_not_read(follower: Follower, path: Path) -> None:
    with path.open("w") as file:
        for _ in range(8):
            file.write(" ")
            file.flush()
            assert wait(follower, 0.1) is None
        file.write("{}")
    assert profile(wait(follower)) == "standard"


def test_following_leaves_no_descriptor_and_no_thread(path: Path) -> None:
    def used() -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), threading.active_count()

    before = used()
    for number in range(5):
        follower = Follower(Sources(path, path.parent / "conf.d"), pytest.fail)
        link_swapped(path, f'{{"quiet_age_s": {number}}}')
        assert isinstance(wait(follower), Loaded)
        follower.close()
    assert used() == before


# ---- what may change -------------------------------------------------------------------------------------------------


def found(text: str) -> Loaded:
    return Loaded(config.loads(text.encode(), "x"), {})


def test_live_keys_are_those_that_the_operators_were_promised() -> None:
    fixed = {key.name for key in KEYS if not key.live}
    assert fixed == {
        "events_dir", "output_dir", "storage_type", "ship_user", "run_dir", "pin_dir",
        "ring_bytes", "control_ring_bytes", "control_lane", "log_compression", "log_compression_level",
        "es_config.es_index", "es_config.index_period", "es_config.profile",
    }  # fmt: skip


def test_a_change_of_live_keys_is_taken() -> None:
    assert (
        live.refusal(Config(), found('{"profile": "trace", "log_level": "error", "es_config": {"es_password": "x"}}'))
        == ""
    )


def test_a_change_that_needs_a_restart_is_refused_as_a_whole(path: Path) -> None:
    path.write_text('{"profile": "trace",\n "ring_bytes": 1048576, "events_dir": "/x"}')
    problem = live.refusal(Config(), config.read(Sources(path, path.parent / "conf.d")))
    assert problem == f"{path}:2: events_dir, ring_bytes: can only change at a restart; nothing of the change is taken"


def test_a_locked_configuration_takes_nothing_but_itself() -> None:
    before = config.loads(b'{"locked": true}', "x")
    assert live.refusal(before, found('{"locked": true}')) == ""
    assert "locked: the configuration is locked" in live.refusal(before, found('{"locked": false}'))
    assert "profile: the configuration is locked" in live.refusal(before, found('{"locked": true, "profile": "full"}'))


def test_the_event_of_a_change_has_names_and_digests_and_never_a_value() -> None:
    after = config.loads(b'{"profile": "full", "es_config": {"es_password": "hunter2"}}', "x")
    told = live.change(Config(), after)
    assert told["keys"] == ["es_config.es_password", "profile"]
    assert told["old"] != told["new"]
    assert "hunter2" not in str(told)
    secret_only = config.loads(b'{"es_config": {"es_password": "other"}, "profile": "full"}', "x")
    assert live.change(after, secret_only) == {
        "old": told["new"], "new": told["new"], "keys": ["es_config.es_password"],
    }  # fmt: skip


def test_what_changed_between_two_runs_is_told_by_the_second(tmp_path: Path) -> None:
    kept, after = tmp_path / "out", config.loads(b'{"fold": false, "es_config": {"es_port": 1}}', "x")
    assert live.since_last_run(kept, Config()) == (None, "")
    assert live.remember(kept, Config()) == ""
    assert live.since_last_run(kept, Config()) == (None, "")
    assert live.since_last_run(kept, after) == (
        {"config": {"old": config.digest(Config()), "new": config.digest(after), "keys": ["es_config.es_port", "fold"]}}, "",
    )  # fmt: skip
    (kept / "config.last.json").write_text("rubbish")
    members, problem = live.since_last_run(kept, after)
    assert members is None
    assert "cannot compare" in problem


# ---- the shipper's side ----------------------------------------------------------------------------------------------


def test_the_shipper_is_given_what_can_be_taken_and_says_what_cannot(path: Path) -> None:
    said: list[str] = []
    changed = live.changes(Sources(path, path.parent / "conf.d"), config.load(path), Voice(said.append))

    def wait_for(text: str) -> Config | None:
        deadline, found = time.monotonic() + 30, None
        while time.monotonic() < deadline and not any(text in one for one in said):
            found = changed() or found
            time.sleep(0.004)
        return found

    path.write_text('{"profile": "full", "es_config": {"batch_size": 7}}')
    taken = wait_for("is taken: es_config.batch_size")
    assert taken is not None
    assert taken.es_config.batch_size == 7
    path.write_text('{"profile": "full", "output_dir": "/x"}')
    assert wait_for("output_dir: can only change at a restart") is None
    path.write_text("{")
    assert wait_for("expected the name of a key") is None
    path.write_text('{"profile": "full", "es_config": {"batch_size": 7}, "log_level": "warning"}')
    deadline, taken = time.monotonic() + 30, None
    while taken is None and time.monotonic() < deadline:
        taken = changed()
    assert taken is not None
    assert taken.log_level == "warning"
    assert not any("log_level" in one for one in said), "less important than the new level"


def test_a_running_shipper_changes_its_connection_and_its_limits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    said: list[str] = []

    class Runner:
        def __init__(self, *arguments: object, tick: Callable[[], None]) -> None:
            seen["hooks"], seen["tick"] = arguments[2], tick

        def configure(self, wanted: Config) -> None:
            seen["configured"] = wanted

        def run(self) -> int:
            for _ in range(3):
                seen["tick"]()  # type: ignore[operator]
            return 0

    def local(**members: object) -> Config:
        es = EsConfig(**{"es_host": ("127.0.0.1",), "secure": False} | members)  # type: ignore[arg-type]
        return Config(output_dir=path.parent, es_config=es)

    wanted = [local(es_user="x"), local(es_port=9999), None]  # the first has a user and no password
    monkeypatch.setattr(standalone, "Runner", Runner)
    monkeypatch.setattr(standalone, "signals", lambda _: None)
    assert standalone.run(local(), said.append, once=False, changed=lambda: wanted.pop(0)) == 0
    assert seen["configured"] == local(es_port=9999)
    assert len(said) == 1
    assert "not taken" in said[0]
    assert seen["hooks"].connect()._es.es_port == 9999  # type: ignore[attr-defined]
