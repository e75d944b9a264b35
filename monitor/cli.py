"""The commands that people type: options, help and exit status of each.

Owns how a command line becomes a call and how every error becomes one sentence; never decides anything itself.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from monitor import __version__, config
from monitor.compact import Compact
from monitor.config import Config, ConfigError
from monitor.embedded import embedded
from monitor.log import LogError
from monitor.logfiles import Problem, ReaderError

if TYPE_CHECKING:
    from monitor.search import Found, Search

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG, EXIT_INTERRUPTED = 0, 1, 64, 78, 130

Command = Callable[..., int]


class Program(click.Group):
    """The group of all commands: what a command returns is the exit status, and no error leaves as a traceback."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any) -> NoReturn:  # type: ignore[override]
        """Runs the command line and exits."""
        sys.exit(_finished(self._status(sys.argv[1:] if args is None else list(args), prog_name or "ebpf-monitor")))

    def _status(self, args: list[str], name: str) -> int:
        try:
            with self.make_context(name, args) as context:
                return int(self.invoke(context) or EXIT_OK)
        except click.exceptions.Exit as ended:
            return ended.exit_code
        except click.UsageError as error:
            with contextlib.suppress(OSError):  # nobody reads messages: the status says it
                error.show()
            return EXIT_USAGE
        except ConfigError as error:
            return _die(str(error), EXIT_CONFIG)
        except (click.Abort, KeyboardInterrupt):
            return _die("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            return EXIT_OK  # `tail | head`: whoever read our output has seen enough
        except ReaderError as error:
            return _die(f"{error.problem.path}: {error.problem.reason}")
        except (LogError, click.ClickException) as error:
            return _die(str(error))
        except OSError as error:
            return _die(_sentence(error))


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fspath(error.filename)!r}: {reason}" if isinstance(error.filename, str | bytes) else reason


def _die(message: str, status: int = EXIT_FAILURE) -> int:
    _say(f"ebpf-monitor: {message}")
    return status


def _finished(status: int) -> int:
    """Flushes standard output: neither a reader that went away nor a full disk may end in the interpreter's words."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        return status or _die(f"cannot write to standard output: {error.strerror}")  # a failure has been told already
    return status


def _silence() -> None:
    """What is still buffered for standard output goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _show(text: str) -> None:
    """A whole report. A reader that goes away early (`| head`) changes nothing of the command's verdict."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        _silence()


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads messages: the exit status says it
        click.echo(message, err=True)


# ---- options that several commands have ------------------------------------------------------------------------------

_PATH = click.Path(path_type=Path)
_config_option = click.option(
    "--config", "path", type=_PATH, metavar="PATH",
    help="Configuration file. Default: /var/config.json, then /etc/ebpf-monitor/config.json, then built-in values.",
)  # fmt: skip


def _finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("must be a number of seconds")
    return value


def _configuration(path: Path | None) -> tuple[Config, bool]:
    """The configuration, and whether it came from a file. Raises ConfigError."""
    found = config.find(path)
    return (embedded(Path.cwd()), False) if found is None else (config.load(found), True)


def _numba_cache(directory: Path) -> None:
    """Where compiled code is kept if the package's own directory cannot be written: numba refuses to import without a place."""
    if not os.access(Path(__file__).parent, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(directory))


def _compact() -> Compact:
    """Rendering that fits standard output: cut and coloured only on a terminal."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"
    return Compact(columns=shutil.get_terminal_size().columns if terminal else None, colour=colour)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="ebpf-monitor")
def main() -> None:
    """Records what really happened on this host: programs, files and connections, straight from the kernel."""


@main.command()
@_config_option
@click.option("--print", "shown", is_flag=True, help="Also show each event as one line on standard output.")
@click.option("--ready-file", type=_PATH, metavar="PATH", help="Write the process id there once events are recorded.")
@click.option(
    "--duration", type=click.FloatRange(min=0), callback=_finite, metavar="SECONDS", help="Stop after this time."
)
@click.option("--record", type=_PATH, metavar="FILE", help="Also write the raw samples to FILE, for `replay`.")
def run(path: Path | None, shown: bool, ready_file: Path | None, duration: float | None, record: Path | None) -> int:
    """Capture events into the log, until Ctrl-C or SIGTERM.

    \b
    Examples:
      sudo ebpf-monitor run --print
      sudo ebpf-monitor run --config /etc/ebpf-monitor/config.json --duration 60
    """
    from monitor.instance import StartError, check_capabilities

    try:
        check_capabilities()  # before the compiled pass is imported, which wants a place for its cache
    except StartError as error:
        return _die(str(error), error.status)
    settings, from_file = _configuration(path)
    if settings.storage_type == "elasticsearch":
        return _die("storage_type elasticsearch: the delivery is not built yet; set storage_type to local", EXIT_CONFIG)
    _numba_cache(settings.output_dir / "cache")
    from monitor import app, display
    from monitor.enrich import HostFactsError
    from monitor.kernel.btf import BtfError
    from monitor.kernel.control import ControlError
    from monitor.procfs import ProcfsError

    if not from_file:
        _say(f"no configuration file: profile {settings.profile}, everything below {settings.events_dir.parent}")
    output = sys.stdout.fileno() if shown and sys.stdout is not None else None
    if shown and output is None:
        _say("standard output is closed: events are logged, but not shown")
    screen = display.Screen(sys.stderr, where=f"log in {settings.events_dir}", output=output, compact=_compact())
    options = app.Options(duration, ready_file, record, say=screen.say, show=screen.show, tick=screen.tick)
    try:
        with screen:
            return app.run(settings, options)
    except StartError as error:
        return _die(str(error), error.status)
    except (HostFactsError, BtfError, ControlError, ProcfsError) as error:
        return _die(str(error))


@main.command("check-config")
@_config_option
def check_config(path: Path | None) -> int:
    """Check the configuration; print the values in effect, without secrets.

    \b
    Example:
      ebpf-monitor check-config --config /etc/ebpf-monitor/config.json
    """
    settings, _ = _configuration(path)
    _show(_json(config.effective(settings)))
    return EXIT_OK


@main.command("config-reference")
def config_reference() -> int:
    """Every configuration key with its type, default and meaning, as Markdown.

    \b
    Example:
      ebpf-monitor config-reference | grep commit_
    """
    _show(config.reference())
    return EXIT_OK


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def status(path: Path | None, as_json: bool) -> int:
    """Is the monitor running, how far behind is it, what did it lose, how much does it write.

    Exit status: 0 running and balanced, 1 not balanced or silent for 5 s, 3 not running.

    \b
    Examples:
      ebpf-monitor status
      ebpf-monitor status --json | jq .ledger
    """
    from monitor import status as module

    try:
        found = module.read(_configuration(path)[0].run_dir)
    except module.StatusError as error:
        return _die(str(error))
    _show(_json(found.document()) if as_json else module.table(found))
    return found.exit_status


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def doctor(path: Path | None, as_json: bool) -> int:
    """What this host and kernel can do, what is missing, and the command that helps.

    Exit status: 1 when something is missing; with warnings alone 0: the monitor works, only less well.

    \b
    Examples:
      sudo ebpf-monitor doctor
      sudo ebpf-monitor doctor --json | jq '.checks[] | select(.state != "ok")'
    """
    from monitor import doctor as module

    checks = module.examine(module.Host(_configuration(path)[0]))
    _show(_json(module.document(checks)) if as_json else module.text(checks))
    return module.exit_status(checks)


@main.command()
@_config_option
@click.argument("directory", type=_PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--elasticsearch", is_flag=True, help="Also compare with the index (not built yet).")
def verify(path: Path | None, directory: Path | None, as_json: bool, elasticsearch: bool) -> int:
    """Is the log whole: DIRECTORY, or the configured events_dir.

    Checks each line, each number, each epoch's link to the one before, and the ledgers. Losses that the log records
    are told, and are no findings. Exit status: 1 with findings.

    \b
    Examples:
      ebpf-monitor verify
      ebpf-monitor verify --json /mnt/evidence/events | jq .findings
    """
    from monitor import verify as module

    if elasticsearch:
        return _die("verify --elasticsearch: the comparison with an index is not built yet")
    report = module.check(directory or _configuration(path)[0].events_dir)
    _show(_json(report.document()) if as_json else report.text())
    return report.exit_status


@main.command()
@click.argument("name", required=False)
def events(name: str | None) -> int:
    """The reference of all events, or of the event NAME, as Markdown.

    \b
    Examples:
      ebpf-monitor events | less
      ebpf-monitor events file_open
    """
    from monitor import generate, search

    try:
        _show(generate.reference(name))
    except KeyError:
        raise click.BadParameter(search.unknown_event(str(name)), param_hint="NAME") from None
    return EXIT_OK


@main.command("replay")
@click.argument("file", type=_PATH)
@click.option("-o", "--output", type=click.Choice(["compact", "json"]), default="compact", help="Lines, or documents.")
def replay_command(file: Path, output: str) -> int:
    """Run the raw samples of a recording through the pipeline again and show its lines.

    A recording is made by `run --record FILE`: for a bug report, or to see what another version makes of it.

    \b
    Examples:
      sudo ebpf-monitor run --record trouble.rec --duration 30
      ebpf-monitor replay trouble.rec -o json | jq .process
    """
    render = _compact().raw
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-") as scratch:
        _numba_cache(Path(scratch))
        from monitor import replay
        from monitor.recording import RecordingError

        try:
            for batch in replay.replay(file, Path(scratch)):
                if output == "json":
                    click.echo(batch, nl=False)
                else:
                    for line in batch.splitlines():
                        click.echo(render(line))
        except RecordingError as error:
            return _die(str(error))
    return EXIT_OK


# ---- reading the log -------------------------------------------------------------------------------------------------


def _checked_events(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    from monitor import search

    try:
        return search.event_names(names)
    except search.FilterError as error:
        raise click.BadParameter(str(error)) from None


def _checked_time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    from monitor import timewords

    try:
        return None if text is None else timewords.nanoseconds(text, datetime.datetime.now().astimezone())
    except timewords.TimeError as error:
        raise click.BadParameter(str(error)) from None


_FILTER_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    _config_option,
    click.option("-D", "--directory", type=_PATH, metavar="DIR", help="Read the log in DIR, not the configured one."),
    click.option("-p", "--pid", "pids", type=click.IntRange(min=0), multiple=True, metavar="PID",
                 help="Only of this process."),
    click.option("-u", "--user", "users", multiple=True, metavar="USER", help="Only of this user: a number or a name."),
    click.option("-n", "--name", "names", multiple=True, metavar="GLOB", help="Only of this program or thread name."),
    click.option("-x", "--failed", is_flag=True, help="Only acts that failed."),
    click.option("--event", "events", multiple=True, metavar="NAME", callback=_checked_events,
                 help="Only this event (file_open), or all of a family (file)."),
    click.option("--path", "paths", multiple=True, metavar="GLOB",
                 help="Only with this path, of the file (or its earlier name), program or Unix socket; * matches /."),
    click.option("--container", "containers", multiple=True, metavar="ID",
                 help="Only in this container: its id, or how that begins."),
    click.option("--since", "since_ns", metavar="TIME", callback=_checked_time, help="Not before this time."),
    click.option("--until", "until_ns", metavar="TIME", callback=_checked_time, help="Not after this time."),
    click.option("-o", "--output", "form", type=click.Choice(["compact", "json"]), default="compact", show_default=True,
                 help="One readable line for each event, or the log's own lines."),
)  # fmt: skip


def _filter_options(command: Command) -> Command:
    """Adds the options that tail and search share; they arrive as one Search in `asked`, with `form`."""

    @functools.wraps(command)
    def wrapped(path: Path | None, directory: Path | None, form: str, **conditions: Any) -> int:
        from monitor import search

        own = {name: conditions.pop(name) for name in ("follow", "count") if name in conditions}
        since, until = conditions["since_ns"], conditions["until_ns"]
        if since is not None and until is not None and since > until:
            raise click.UsageError("--since is after --until")
        try:
            wanted = search.Filter(**conditions)
        except search.FilterError as error:
            raise click.UsageError(str(error)) from None
        problems: list[str] = []
        asked = search.Search(
            directory or _configuration(path)[0].events_dir, wanted, lambda one: _problem(problems, one)
        )
        status = command(asked=asked, form=form, **own)
        if asked.unreadable_lines:
            _say(f"ebpf-monitor: {asked.unreadable_lines} lines are no documents; ebpf-monitor verify says where")
        return EXIT_FAILURE if problems else status

    found: Command = wrapped
    for option in reversed(_FILTER_OPTIONS):
        found = option(found)
    return found


def _problem(problems: list[str], problem: Problem) -> None:
    problems.append(str(problem))
    _say(f"ebpf-monitor: {problem}")


def _stream(found: Iterable[Found], form: str, *, at_once: bool = False) -> None:
    """Writes matches to standard output as they come. Raises BrokenPipeError when its reader is gone."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    output = sys.stdout.buffer
    compact = _compact()
    for raw, document in found:
        if form == "json":
            output.write(raw + b"\n")
        else:
            text = compact.raw(raw) if document is None else compact.document(document)
            output.write(text.encode("utf-8", "backslashreplace"))
        if at_once:
            output.flush()
    output.flush()


_TIMES = (
    'TIME is as journalctl takes it: "2026-11-22 16:00", "16:00", "yesterday", "10 min ago", "-1h", "@1795363200"; '
    "or RFC 3339."
)


@main.command(epilog=_TIMES)
@_filter_options
def search(asked: Search, form: str) -> int:
    """Find events in the log: live, rotated and compressed files, oldest first.

    Conditions of one kind are alternatives; different kinds must all hold. Nothing found: exit status 0.

    \b
    Examples:
      ebpf-monitor search --event file_open -x --since "10 min ago"
      ebpf-monitor search --path '/etc/*' -u www-data --since yesterday --until today
      ebpf-monitor search -n sshd --event socket -o json | jq .destination
    """
    _stream(asked.all(), form)
    return EXIT_OK


@main.command(epilog=_TIMES)
@_filter_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
@click.option("-N", "--lines", "count", type=click.IntRange(min=0), default=10, show_default=True, metavar="COUNT",
              help="How many to begin with.")  # fmt: skip
def tail(asked: Search, form: str, follow: bool, count: int) -> int:
    """Show the end of the log, and with -f what comes.

    \b
    Examples:
      ebpf-monitor tail -f
      ebpf-monitor tail -f -x -n 'python3*'
      ebpf-monitor tail -N 100 --event process_exec --event process_exit
    """
    found, place = asked.last(count)
    _stream(found, form)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # the ordinary end
            _stream(asked.follow(place), form, at_once=True)
    return EXIT_OK
