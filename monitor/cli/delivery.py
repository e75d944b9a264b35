"""The command that delivers the log: ship."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from monitor.cli.program import EXIT_OK, config_option, die, loaded, main, say


def _time(text: str | None) -> int | None:
    from monitor import timewords

    if text is None:
        return None
    try:
        return timewords.nanoseconds(text, datetime.datetime.now().astimezone())
    except timewords.TimeError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@config_option
@click.option("--once", is_flag=True, help="Deliver what is durable now, and end.")
@click.option("--since", metavar="TIME", help="Send the events from this time on again (a back-fill).")
@click.option("--until", metavar="TIME", help="... up to this time.")
@click.option(
    "--profile", type=click.Choice(["minimal", "standard", "full", "trace"]), help="... that this profile selects."
)
@click.option("--retry-dead-letters", "retry", is_flag=True, help="Send the documents in dead-letter.jsonl again.")
def ship(path: Path | None, once: bool, since: str | None, until: str | None, profile: str | None, retry: bool) -> int:
    """Deliver the log to Elasticsearch, each event once, until Ctrl-C or SIGTERM. SIGHUP reads the credentials again.

    `run` does this itself with storage_type elasticsearch, unless it was given --no-ship.

    \b
    Examples:
      ebpf-monitor ship --config /etc/ebpf-monitor/config.json
      ebpf-monitor ship --once
      ebpf-monitor ship --since "yesterday 14:00" --until "yesterday 15:00" --profile full
      ebpf-monitor ship --retry-dead-letters
    """
    from monitor import live
    from monitor.ship import resend, standalone
    from monitor.ship.runner import Control, ShipError
    from monitor.ship.shipper import Hooks
    from monitor.sinks.elasticsearch import EsError
    from monitor.voice import Voice

    filled = since is not None or until is not None or profile is not None
    if retry and (filled or once):
        raise click.UsageError("--retry-dead-letters stands alone")
    since_ns, until_ns = _time(since), _time(until)
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise click.UsageError("--since is after --until")
    found, sources = loaded(path)
    settings = found.config
    try:
        if retry:
            resend.retry(settings, standalone.ship_dir(settings), standalone.connector(settings), say)
        elif filled:
            control = Control()
            standalone.signals(control)
            hooks = Hooks(standalone.connector(settings), say)
            directory = standalone.ship_dir(settings)
            counts = resend.backfill(
                settings, directory, hooks, control, since_ns=since_ns, until_ns=until_ns, profile=profile
            )
            say(f"{counts['created']} sent, {counts['duplicate']} were there already, {counts['dead_letter']} rejected")
        else:
            voice = Voice(say, settings.log_level)
            changed = live.changes(sources, settings, voice) if found.files and not once else lambda: None
            return standalone.run(settings, voice.warning, once=once, changed=changed)
    except ShipError as error:
        return die(str(error), error.status)
    except EsError as error:
        return die(str(error))
    return EXIT_OK
