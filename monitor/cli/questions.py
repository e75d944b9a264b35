"""Commands that read the log: search, tail, verify, replay; and the event reference."""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.program import (
    EXIT_FAILURE,
    EXIT_OK,
    PATH,
    Command,
    as_json_text,
    config_option,
    configuration,
    die,
    main,
    numba_cache,
    renderer,
    say,
    show,
)
from monitor.cli.provisioning import credentials_option
from monitor.logfiles import Problem

if TYPE_CHECKING:
    from monitor.config_keys import Config
    from monitor.search import Filter, Found, Search
    from monitor.verify import Report


@main.command()
@config_option
@click.argument("directory", type=PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--elasticsearch", is_flag=True, help="Also compare with the index, day by day.")
@credentials_option
def verify(
    path: Path | None, directory: Path | None, as_json: bool, elasticsearch: bool, credentials_file: Path | None
) -> int:
    """Is the log whole: DIRECTORY, or the configured events_dir.

    Checks each line, each number, each epoch's link to the one before, and the ledgers. Losses that the log records
    are told, and are no findings. With --elasticsearch, each line has to have its document and the other way round;
    that needs credentials that may read the indices. Exit status: 1 with findings.

    \b
    Examples:
      ebpf-monitor verify
      ebpf-monitor verify --json /mnt/evidence/events | jq .findings
      ebpf-monitor verify --elasticsearch --credentials reader.env
    """
    from monitor import verify as module

    report = module.check(directory or configuration(path).events_dir)
    if elasticsearch:
        problem = _compared(report, configuration(path), credentials_file)
        if problem:
            return die(problem)
    show(as_json_text(report.document()) if as_json else report.text())
    return report.exit_status


def _compared(report: Report, settings: Config, credentials_file: Path | None) -> str:
    """Compares with the index; why that was not possible, or ""."""
    from monitor import verify_index
    from monitor.cluster import Cluster, ClusterError, with_credentials
    from monitor.ship.checkpoint import CheckpointError
    from monitor.sinks.credentials import CredentialError
    from monitor.sinks.elasticsearch import EsError

    es = with_credentials(settings.es_config, credentials_file)
    try:
        with Cluster(es) as cluster:
            if cluster.warning:
                say(cluster.warning)
            verify_index.compare(
                report, settings.output_dir / "ship", cluster, f"{es.es_index}-*", es.profile, on_day=say
            )
    except (ClusterError, CredentialError, EsError, CheckpointError) as error:
        return str(error)
    return ""


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
        show(generate.reference(name))
    except KeyError:
        raise click.BadParameter(search.unknown_event(str(name)), param_hint="NAME") from None
    return EXIT_OK


@main.command("replay")
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=click.Choice(["compact", "json"]), default="compact", help="Lines, or documents.")
def replay_command(file: Path, output: str) -> int:
    """Run the raw samples of a recording through the pipeline again and show its lines.

    A recording is made by `run --record FILE`: for a bug report, or to see what another version makes of it.

    \b
    Examples:
      sudo ebpf-monitor run --record trouble.rec --duration 30
      ebpf-monitor replay trouble.rec -o json | jq .process
    """
    render = renderer().raw
    with tempfile.TemporaryDirectory(prefix="ebpf-monitor-") as scratch:
        numba_cache(Path(scratch))
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
            return die(str(error))
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
    config_option,
    click.option("-D", "--directory", type=PATH, metavar="DIR", help="Read the log in DIR, not the configured one."),
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
        index = {name: conditions.pop(name, None) for name in ("elasticsearch", "host", "credentials_file")}
        since, until = conditions["since_ns"], conditions["until_ns"]
        if since is not None and until is not None and since > until:
            raise click.UsageError("--since is after --until")
        try:
            wanted = search.Filter(**conditions)
        except search.FilterError as error:
            raise click.UsageError(str(error)) from None
        if index["elasticsearch"]:
            return _of_index(configuration(path), wanted, form, index["host"], index["credentials_file"])
        problems: list[str] = []
        asked = search.Search(directory or configuration(path).events_dir, wanted, lambda one: _problem(problems, one))
        status = command(asked=asked, form=form, **own)
        if asked.unreadable_lines:
            say(f"ebpf-monitor: {asked.unreadable_lines} lines are no documents; ebpf-monitor verify says where")
        return EXIT_FAILURE if problems else status

    found: Command = wrapped
    for option in reversed(_FILTER_OPTIONS):
        found = option(found)
    return found


def _of_index(settings: Config, wanted: Filter, form: str, host: str | None, credentials_file: Path | None) -> int:
    """Shows what the index has of this host, of another one, or of all."""
    from monitor.cluster import Cluster, ClusterError, with_credentials
    from monitor.enrich import HostFacts, HostFactsError
    from monitor.indexed import IndexSearch
    from monitor.sinks.credentials import CredentialError
    from monitor.sinks.elasticsearch import EsError

    try:
        who = None if host == "all" else host or HostFacts.read().agent_id
        es = with_credentials(settings.es_config, credentials_file)
        with Cluster(es) as cluster:
            if cluster.warning:
                say(cluster.warning)
            _stream(IndexSearch(cluster, f"{es.es_index}-*", wanted, who).all(), form)
    except (ClusterError, CredentialError, EsError, HostFactsError) as error:
        return die(str(error))
    return EXIT_OK


def _problem(problems: list[str], problem: Problem) -> None:
    problems.append(str(problem))
    say(f"ebpf-monitor: {problem}")


def _stream(found: Iterable[Found], form: str, *, at_once: bool = False) -> None:
    """Writes matches to standard output as they come. Raises BrokenPipeError when its reader is gone."""
    from monitor.answers import text

    lines = None if form == "json" else renderer()
    _write((text(one, lines) for one in found), at_once=at_once)


def _write(texts: Iterable[bytes], *, at_once: bool = False) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    output = sys.stdout.buffer
    for text in texts:
        output.write(text)
        if at_once:
            output.flush()
    output.flush()


_TIMES = (
    'TIME is as journalctl takes it: "2026-11-22 16:00", "16:00", "yesterday", "10 min ago", "-1h", "@1795363200"; '
    "or RFC 3339."
)


@main.command(epilog=_TIMES)
@_filter_options
@click.option("--elasticsearch", is_flag=True, help="Ask the index, not the log. Needs credentials that may read it.")
@click.option("--host", metavar="NAME", help="... for what this host (a name, or `all`) recorded. Default: this one.")
@credentials_option
def search(asked: Search, form: str) -> int:
    """Find events in the log: live, rotated and compressed files, oldest first.

    Conditions of one kind are alternatives; different kinds must all hold. Nothing found: exit status 0.

    \b
    Examples:
      ebpf-monitor search --event file_open -x --since "10 min ago"
      ebpf-monitor search --path '/etc/*' -u www-data --since yesterday --until today
      ebpf-monitor search -n sshd --event socket -o json | jq .destination
      ebpf-monitor search --elasticsearch --credentials reader.env --host web2 --path /etc/passwd
    """
    from monitor.answers import Answers

    _write(Answers(asked, None if form == "json" else renderer()).all())
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
