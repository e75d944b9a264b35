"""What all commands share: the group, options, how errors become one sentence and a status, how a text is shown.

Knows no command.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from monitor import __version__, config
from monitor.compact import Compact
from monitor.config import ConfigError, Loaded
from monitor.config_keys import Config
from monitor.embedded import embedded
from monitor.log import LogError
from monitor.logfiles import ReaderError

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG, EXIT_INTERRUPTED = 0, 1, 64, 78, 130

Command = Callable[..., int]

# numpy's BLAS would start a thread for each processor, each spins a while before it sleeps (0.07 s of CPU with two), and
# nothing is multiplied here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Program(click.Group):
    """The group of all commands: what a command returns is the exit status, and no error leaves as a traceback."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **_: Any) -> NoReturn:  # type: ignore[override]
        """Runs the command line and exits. What a shell's completion asks for (packages install it) comes first."""
        asked = os.environ.get("_EBPF_MONITOR_COMPLETE")
        if asked:
            from click.shell_completion import shell_complete

            sys.exit(shell_complete(self, {}, "ebpf-monitor", "_EBPF_MONITOR_COMPLETE", asked))
        sys.exit(finished(self._status(sys.argv[1:] if args is None else list(args), prog_name or "ebpf-monitor")))

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
            return die(str(error), EXIT_CONFIG)
        except (click.Abort, KeyboardInterrupt):
            return die("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            return EXIT_OK  # `tail | head`: whoever read our output has seen enough
        except ReaderError as error:
            return die(f"{error.problem.path}: {error.problem.reason}")
        except (LogError, click.ClickException) as error:
            return die(str(error))
        except OSError as error:
            return die(sentence(error))


def sentence(error: OSError) -> str:
    """An operating system error for people: what, and about which file."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fspath(error.filename)!r}: {reason}" if isinstance(error.filename, str | bytes) else reason


def die(message: str, status: int = EXIT_FAILURE) -> int:
    """Says why a command fails; the exit status for it to return."""
    say(f"ebpf-monitor: {message}")
    return status


def finished(status: int) -> int:
    """Flushes standard output: neither a reader that went away nor a full disk may end in the interpreter's words."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        return status or die(f"cannot write to standard output: {error.strerror}")  # a failure has been told already
    return status


def silence() -> None:
    """What is still buffered for standard output goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def as_json_text(document: dict[str, Any]) -> str:
    """What `--json` prints."""
    return json.dumps(document, indent=2) + "\n"


def show(text: str) -> None:
    """A whole report. A reader that goes away early (`| head`) changes nothing of the command's verdict."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        silence()


def say(message: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):  # nobody reads messages: the exit status says it
        click.echo(message, err=True)


# ---- options that several commands have ------------------------------------------------------------------------------

PATH = click.Path(path_type=Path)
config_option = click.option(
    "--config", "path", type=PATH, metavar="PATH",
    help="Configuration file. Default: /var/config.json, then /etc/ebpf-monitor/config.json, then built-in values. "
    "Then conf.d/*.json beside it (without --config: /etc/ebpf-monitor/conf.d).",
)  # fmt: skip


def finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """A number of seconds that is one: neither inf nor nan."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("must be a number of seconds")
    return value


def listening(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """[ADDRESS:]PORT as a pair; an IPv6 address stands in brackets."""
    if value is None:
        return None
    address, _, port = value.rpartition(":")
    address = (address.removeprefix("[").removesuffix("]")) or "127.0.0.1"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise click.BadParameter(f"{address!r} is no IP address") from None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise click.BadParameter(f"{port!r} is no port (1 to 65535)")
    return address, int(port)


def stop_on_signal(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call `stop`, in a thread: it may wait for the one that the signal interrupts."""

    def act(_number: int, _frame: object) -> None:
        threading.Thread(target=stop).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, act)


def loaded(path: Path | None) -> tuple[Loaded, config.Sources]:
    """The configuration and the files it is made of; without any the built-in one. Raises ConfigError."""
    sources = config.locate(path)
    found = config.read(sources)
    return (found if found.files else Loaded(embedded(Path.cwd()), {})), sources


def configuration(path: Path | None) -> Config:
    """The configuration alone. Raises ConfigError."""
    return loaded(path)[0].config


def numba_cache(directory: Path) -> None:
    """Where compiled code is kept if the package's own directory cannot be written: numba refuses to import without a place."""
    if not os.access(Path(__file__).parent.parent, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(directory))


def renderer() -> Compact:
    """Rendering that fits standard output: cut and coloured only on a terminal."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"
    return Compact(columns=shutil.get_terminal_size().columns if terminal else None, colour=colour)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="ebpf-monitor")
def main() -> None:
    """Records what really happened on this host: programs, files and connections, straight from the kernel."""
