"""The commands as people type them, in a process of their own: help, exit status, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from monitor import __version__, cli, config
from monitor.embedded import embedded
from tests import loglines

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(cli.main.commands)
NEEDS_LOG = [["tail"], ["search"], ["verify"]]


class Run:
    """Runs `ebpf-monitor` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.json"
        self.events_dir = directory / "events"
        keys = {name: str(directory / name.removesuffix("_dir")) for name in ("output_dir", "run_dir")}
        self.config.write_text(json.dumps(keys | {"events_dir": str(self.events_dir)}))
        self.config.chmod(0o600)

    def popen(self, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"} | options.pop("env", {})
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(
            [sys.executable, "-m", "monitor", *args], cwd=self.directory, env=environment, **streams
        )

    def __call__(self, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs to the end. Whatever happens, nothing of the interpreter may show."""
        process = self.popen(*args, **options)
        out, error = process.communicate(timeout=60)
        said = (error or b"").decode()
        assert "Traceback" not in said, said
        assert "Exception ignored" not in said, said
        return subprocess.CompletedProcess(args, process.returncode, (out or b"").decode(), said)

    def on(self, command: str, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same with this directory's configuration."""
        return self(command, "--config", self.config, *args, **options)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def log(run: Run) -> Run:
    lines = [
        loglines.start(),
        *(loglines.line(number, path=f"/file/{number}", ret=-2 if number % 5 == 0 else 3) for number in range(2, 30)),
    ]
    loglines.write(run.events_dir, [*lines, loglines.stop(30)])
    return run


def help_of(*args: str) -> str:
    result = CliRunner().invoke(cli.main, [*args, "--help"], terminal_width=120)
    assert result.exit_code == 0, result.output
    return result.output


# ---- help ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_of_the_contract() -> None:
    listed = set(re.findall(r"^  ([a-z-]+)  ", help_of().partition("Commands:")[2], re.MULTILINE))
    assert listed >= {
        "run",
        "check-config",
        "doctor",
        "status",
        "tail",
        "search",
        "verify",
        "events",
        "config-reference",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command: str) -> None:
    text = help_of(command)
    assert re.search(rf"^ +(sudo )?ebpf-monitor {command}\b", text, re.MULTILINE)


def examples() -> Iterator[list[str]]:
    """The arguments of every example in the help texts, up to a pipe."""
    for command in COMMANDS:
        for found in re.findall(
            r"^ +(?:sudo )?(ebpf-monitor .*)$", cli.main.commands[command].help or "", re.MULTILINE
        ):
            words = shlex.split(found, posix=True)
            yield words[1 : words.index("|")] if "|" in words else words[1:]


@pytest.mark.parametrize("words", list(examples()), ids=" ".join)
def test_each_example_is_a_command_line_that_is_understood(words: list[str]) -> None:
    command = cli.main.commands[words[0]]
    with command.make_context(words[0], list(words[1:])) as context:
        assert isinstance(context, click.Context)
    assert not any(word for word in words if "*" in word and f"'{word}'" not in (command.help or "")), (
        "the shell would expand it"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_options_have_help(command: str) -> None:
    assert all(option.help for option in cli.main.commands[command].params if isinstance(option, click.Option))


def test_version_is_the_package_s(run: Run) -> None:
    assert run("--version").stdout == f"ebpf-monitor, version {__version__}\n"


# ---- exit status -----------------------------------------------------------------------------------------------------

USAGE = [
    [],
    ["nonsense"],
    ["--nope"],
    ["run", "--nope"],
    ["run", "extra"],
    ["run", "--duration", "-1"],
    ["run", "--duration", "x"],
    ["run", "--config"],
    ["tail", "-N", "-1"],
    ["tail", "-N", "x"],
    ["search", "-p", "x"],
    ["search", "-o", "xml"],
    ["search", "--event", "file_opn"],
    ["search", "--since", "soon"],
    ["search", "--until", "1h"],
    ["search", "--since", "now", "--until", "-1h"],
    ["search", "--path", b"\xff".decode("utf-8", "surrogateescape")],
    ["events", "file_opn"],
    ["status", "x"],
    ["verify", "a", "b"],
]


@pytest.mark.parametrize(
    "words", USAGE, ids=lambda words: " ".join(words).encode("ascii", "backslashreplace").decode() or "(nothing)"
)
def test_wrong_usage_is_64(run: Run, words: list[str]) -> None:
    result = run(*words)
    assert (result.returncode, result.stdout) == (64, "")
    assert result.stderr


def test_wrong_event_is_told_the_nearest(run: Run) -> None:
    assert "did you mean file_open?" in run("search", "--event", "file_opn").stderr
    assert "did you mean file_open?" in run("events", "file_opn").stderr


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if any(one.name == "path" for one in cli.main.commands[name].params)]
)
def test_configuration_that_is_not_there_is_78(run: Run, command: str) -> None:
    result = run(command, "--config", "/nonexistent/config.json")
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr == "ebpf-monitor: /nonexistent/config.json: no such file\n"


@pytest.mark.parametrize("command", ["run", "check-config", "status"])
def test_bad_configuration_is_78_and_one_line(run: Run, command: str) -> None:
    run.config.write_text('{\n "profil": "full"\n}')
    result = run.on(command)
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr == f"ebpf-monitor: {run.config}:2: profil: unknown key; did you mean profile?\n"


@pytest.mark.parametrize("command", ["verify", "search"])
def test_a_cluster_that_is_not_there_is_a_sentence(log: Run, command: str) -> None:
    settings = json.loads(log.config.read_text()) | {"es_config": {"es_port": 1, "secure": False}}
    log.config.write_text(json.dumps(settings))
    result = log.on(command, "--elasticsearch")
    assert result.returncode == 1
    assert "cannot connect" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_config_prints_what_is_in_effect_without_secrets(run: Run) -> None:
    run.config.write_text('{"profile": "trace", "es_config": {"es_password": "hunter2"}}')
    result = run.on("check-config")
    found = json.loads(result.stdout)
    assert result.returncode == 0
    assert (found["profile"], found["fold"], found["es_config"]["es_password"]) == ("trace", False, "***")
    assert "hunter2" not in result.stdout + result.stderr


def test_config_reference_and_events_are_markdown(run: Run) -> None:
    assert "`events_dir`" in run("config-reference").stdout
    every = run("events")
    assert (every.returncode, every.stderr) == (0, "")
    assert all(name in every.stdout for name in ("file_open", "process_exec", "monitor_heartbeat"))
    assert run("events", "file_open").stdout.startswith("# file_open\n")


def test_status_of_a_monitor_that_is_not_there_is_3(run: Run) -> None:
    result = run.on("status")
    assert (result.returncode, result.stdout) == (3, "monitor  not running\n")
    found = json.loads(run.on("status", "--json").stdout)
    assert found["running"] is False


def test_doctor_prints_a_line_for_each_check_and_json(run: Run) -> None:
    result = run.on("doctor")
    assert result.returncode in (0, 1)
    assert all(re.match(r"(ok|warn|missing) +\S", row) for row in result.stdout.splitlines())
    found = json.loads(run.on("doctor", "--json").stdout)
    assert found["ok"] is (result.returncode == 0)


def test_verify_of_a_whole_log_is_0_and_of_a_damaged_one_1(log: Run) -> None:
    assert log.on("verify").returncode == 0
    assert log("verify", log.events_dir).returncode == 0
    path = log.events_dir / "events.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:10] + rows[11:]))
    result = log.on("verify", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["findings"] == {"hole": 1}


def test_embedded_configuration_lies_below_the_current_directory(tmp_path: Path) -> None:
    found = embedded(tmp_path)
    assert (found.events_dir, found.output_dir, found.run_dir) == tuple(
        tmp_path / "var" / name for name in ("events", "outputs", "run")
    )
    assert (found.profile, found.storage_type, str(found.pin_dir)) == ("full", "local", "/sys/fs/bpf/ebpf-monitor")


def test_without_any_configuration_search_reads_what_run_would_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATHS", ())
    monkeypatch.chdir(run.directory)
    (run.directory / "var").mkdir()
    loglines.write(run.directory / "var" / "events", [loglines.line(2, path="/found/here")])
    assert "/found/here" in CliRunner().invoke(cli.main, ["search"]).stdout


# ---- reading ---------------------------------------------------------------------------------------------------------


def rows(result: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(number) for number in re.findall(r" /file/(\d+) ", result.stdout)]


def test_search_shows_matches_oldest_first(log: Run) -> None:
    result = log.on("search", "-x")
    assert (rows(result), result.returncode, result.stderr) == ([5, 10, 15, 20, 25], 0, "")
    assert "  ENOENT     100 cat             root     /file/5  O_RDONLY" in result.stdout


def test_search_options_reach_the_filter(log: Run) -> None:
    words = [
        "-p",
        "100",
        "-u",
        "root",
        "-n",
        "c?t",
        "--event",
        "file",
        "--path",
        "/file/1*",
        "-x",
        "--since",
        "2026-11-22T16:52:00Z",
        "--until",
        "2026-11-22 17:00 UTC",
    ]
    assert rows(log.on("search", *words)) == [10, 15]
    assert rows(log.on("search", "--container", "4f")) == []
    assert rows(log("search", "-D", log.events_dir, "--path", "/file/7")) == [7]


def test_json_is_the_line_s_own_bytes(log: Run) -> None:
    whole = (log.events_dir / "events.jsonl").read_bytes()
    assert log.on("search", "-o", "json").stdout.encode() == whole
    assert log.on("tail", "-o", "json", "-N", "2").stdout.encode() == b"".join(whole.splitlines(keepends=True)[-2:])


def test_nothing_found_is_0(log: Run) -> None:
    result = log.on("search", "-p", "4242")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_tail_shows_the_last_ten(log: Run) -> None:
    assert rows(log.on("tail")) == list(range(21, 30))
    assert rows(log.on("tail", "-N", "3", "-x")) == [15, 20, 25]


def test_colour_is_only_for_terminals_and_no_color_is_respected(log: Run) -> None:
    assert "\x1b" not in log.on("search").stdout
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        leader, follower = os.openpty()
        result = log.on(
            "search", "--path", "/file/5", stdout=follower, env={"TERM": "xterm", "NO_COLOR": ""} | environment
        )
        os.close(follower)
        shown = os.read(leader, 65536)
        os.close(leader)
        assert result.returncode == 0
        assert (b"\x1b[31mENOENT" in shown) is coloured


def read_rows(process: subprocess.Popen[bytes], wanted: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(wanted)]


def test_tail_follows_and_ends_with_0_at_ctrl_c(log: Run) -> None:
    process = log.popen("tail", "--config", log.config, "-f", "-N", "1", "-o", "json")
    first = read_rows(process, 1)
    with (log.events_dir / "events.jsonl").open("ab") as opened:
        opened.write(loglines.line(31) + loglines.line(32))
    rows = first + read_rows(process, 2)
    assert [json.loads(row)["event"]["sequence"] for row in rows] == [30, 31, 32]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 0


# ---- never a traceback -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["tail"], ["tail", "-f"], ["search"], ["events"], ["config-reference"], ["verify"]], ids=" ".join
)
def test_reader_that_went_away_is_quiet_and_0(log: Run, words: list[str]) -> None:
    path = log.events_dir / "events.jsonl"
    path.write_bytes(
        b"".join(loglines.line(number) for number in range(1, 3000)) if words[0] != "verify" else path.read_bytes()
    )
    options = [] if words[0] in ("events", "config-reference") else ["--config", str(log.config)]
    reader, writer = os.pipe()
    os.close(reader)
    result = log(words[0], *options, *words[1:], stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_verdict_stays_when_nobody_reads_the_report(log: Run) -> None:
    (log.events_dir / "events.jsonl").write_bytes(b"garbage\n")
    reader, writer = os.pipe()
    os.close(reader)
    result = log.on("verify", stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("words", [["tail"], ["search"], ["verify"], ["events"], ["status"]], ids=" ".join)
def test_full_disk_behind_standard_output_is_a_sentence(log: Run, words: list[str]) -> None:
    options = [] if words[0] == "events" else ["--config", str(log.config)]
    with Path("/dev/full").open("wb") as full:
        result = log(words[0], *options, *words[1:], stdout=full)
    assert result.returncode == 1
    assert re.fullmatch(r"ebpf-monitor: .*No space left on device\n", result.stderr)


@pytest.mark.parametrize("command", ["tail", "search", "verify", "status", "events", "doctor", "check-config"])
def test_closed_standard_streams_are_no_traceback(log: Run, command: str) -> None:
    options = "" if command == "events" else f"--config {shlex.quote(str(log.config))}"
    line = (
        f"{shlex.quote(sys.executable)} -m monitor {command} {options} >&- 2>{shlex.quote(str(log.directory / 'said'))}"
    )
    subprocess.run(
        ["/bin/sh", "-c", line], cwd=log.directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False
    )
    assert "Traceback" not in (log.directory / "said").read_text()
    both = subprocess.run(
        ["/bin/sh", "-c", line.partition(" >&-")[0] + " >&- 2>&-"],
        cwd=log.directory,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert both.returncode in (0, 1, 3)


@pytest.mark.parametrize("words", NEEDS_LOG, ids=" ".join)
def test_missing_directory_is_a_sentence(run: Run, words: list[str]) -> None:
    result = run.on(*words)
    assert result.returncode == 1
    assert (
        result.stderr == f"ebpf-monitor: {run.events_dir}: cannot list the log directory: No such file or directory\n"
    )


@pytest.mark.parametrize("words", NEEDS_LOG, ids=" ".join)
def test_directory_that_is_a_file_is_a_sentence(run: Run, words: list[str]) -> None:
    run.events_dir.write_text("")
    result = run.on(*words)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "Not a directory" in result.stderr


GARBAGE = [
    b"\x00\xff\n",
    b"{\n",
    b"[]\n",
    b"null\n",
    b'{"event":{"id":7}}\n',
    b'{"ebpf":[],"process":3,"@timestamp":{}}\n',
    b"\n\n\n",
    b"\x1b[2J",
    b'{"@timestamp":"2026-11-22T16:52:01.123456789Z","event":"' + b"x" * 5000 + b'"}\n',
]


@pytest.mark.parametrize(
    "words",
    [
        ["tail", "-N", "99"],
        ["search"],
        ["search", "-x", "--path", "*"],
        ["search", "--since", "-20y"],
        ["verify"],
        ["search", "-o", "json", "-p", "1"],
    ],
    ids=" ".join,
)
def test_garbage_lines_are_no_traceback(run: Run, words: list[str]) -> None:
    loglines.write(run.events_dir, [*GARBAGE * 3, loglines.line(2), *GARBAGE])
    result = run.on(*words)
    assert result.returncode in (0, 1)
    assert "\x1b" not in result.stdout + result.stderr


def test_unreadable_file_among_the_logs_is_told_and_is_1(log: Run) -> None:
    (log.events_dir / "events.jsonl.1.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    result = log.on("search", "-x")
    assert rows(result) == [5, 10, 15, 20, 25]
    assert result.returncode == 1
    assert "events.jsonl.1.gz" in result.stderr


def test_interrupted_search_is_130_and_one_word(log: Run, wait_until: Callable[..., None]) -> None:
    reader, writer = os.pipe()
    (log.events_dir / "events.jsonl").write_bytes(b"".join(loglines.line(number) for number in range(1, 3000)))
    process = log.popen("search", "--config", log.config, stdout=writer)  # fills the pipe and waits there
    os.close(writer)
    assert os.read(reader, 1)
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        os.read(reader, 65536)
    _, said = process.communicate(timeout=20)
    os.close(reader)
    assert (process.returncode, said) == (130, b"ebpf-monitor: interrupted\n")


def test_deleted_current_directory_is_a_sentence(run: Run) -> None:
    place = run.directory / "gone"
    place.mkdir()
    line = f"rmdir {shlex.quote(str(place))} && exec {shlex.quote(sys.executable)} -m monitor search"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"ebpf-monitor: ")
