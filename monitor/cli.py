"""The commands that people type: options, help and exit status of each.

Owns how a command line becomes a call and how every error becomes one sentence; never decides anything itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from monitor import __version__, config
from monitor.compact import Compact
from monitor.config import Config, ConfigError
from monitor.embedded import embedded
from monitor.log import LogError
from monitor.logfiles import ReaderError

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
            error.show()
            return EXIT_USAGE
        except ConfigError as error:
            return _die(str(error), EXIT_CONFIG)
        except (click.Abort, KeyboardInterrupt):
            return _die("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            return EXIT_OK  # `tail | head`: whoever read our output has seen enough
        except (LogError, ReaderError, click.ClickException) as error:
            return _die(str(error))
        except OSError as error:
            return _die(_sentence(error))


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fspath(error.filename)!r}: {reason}" if isinstance(error.filename, str | bytes) else reason


def _die(message: str, status: int = EXIT_FAILURE) -> int:
    click.echo(f"ebpf-monitor: {message}", err=True)
    return status


def _finished(status: int) -> int:
    """Flushes standard output: a reader that went away, or a full disk, must not end in a message of the interpreter."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        return _die(f"cannot write to standard output: {error.strerror}")
    return status


def _silence() -> None:
    """What is still buffered for standard output goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def _say(message: str) -> None:
    click.echo(message, err=True)


# ---- options that several commands have ------------------------------------------------------------------------------

_PATH = click.Path(path_type=Path)
_config_option = click.option(
    "--config", "path", type=_PATH, metavar="PATH",
    help="Configuration file. Default: /var/config.json, then /etc/ebpf-monitor/config.json, then built-in values.",
)  # fmt: skip


def _configuration(path: Path | None) -> tuple[Config, bool]:
    """The configuration, and whether it came from a file. Raises ConfigError."""
    found = config.find(path)
    return (embedded(Path.cwd()), False) if found is None else (config.load(found), True)


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
@click.option("--duration", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after this time.")
def run(path: Path | None, shown: bool, ready_file: Path | None, duration: float | None) -> int:
    """Capture events into the log, until Ctrl-C or SIGTERM.

    \b
    Examples:
      sudo ebpf-monitor run --print
      sudo ebpf-monitor run --config /etc/ebpf-monitor/config.json --duration 60
    """
    from monitor import app, display
    from monitor.enrich import HostFactsError
    from monitor.kernel.btf import BtfError
    from monitor.kernel.control import ControlError
    from monitor.procfs import ProcfsError

    settings, from_file = _configuration(path)
    if settings.storage_type == "elasticsearch":
        return _die("storage_type elasticsearch: the delivery is not built yet; set storage_type to local", EXIT_CONFIG)
    if not from_file:
        _say(f"no configuration file: profile {settings.profile}, everything below {settings.events_dir.parent}")
    output = sys.stdout.fileno() if shown and sys.stdout is not None else None
    screen = display.Screen(sys.stderr, where=f"log in {settings.events_dir}", output=output, compact=_compact())
    options = app.Options(duration, ready_file, say=screen.say, show=screen.show, tick=screen.tick)
    try:
        with screen:
            return app.run(settings, options)
    except app.StartError as error:
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
    click.echo(json.dumps(config.effective(settings), indent=2))
    return EXIT_OK


@main.command("config-reference")
def config_reference() -> int:
    """Every configuration key with its type, default and meaning, as Markdown.

    \b
    Example:
      ebpf-monitor config-reference | grep commit_
    """
    click.echo(config.reference(), nl=False)
    return EXIT_OK
