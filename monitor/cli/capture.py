"""Commands that capture, and that look after the capturing monitor: run, status, doctor, and the configuration's."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from monitor import config
from monitor.cli.program import (
    EXIT_OK,
    PATH,
    as_json_text,
    config_option,
    configuration,
    die,
    finite,
    listening,
    loaded,
    main,
    numba_cache,
    renderer,
    say,
    show,
    stop_on_signal,
)
from monitor.config_keys import Config


@main.command()
@config_option
@click.option("--print", "shown", is_flag=True, help="Also show each event as one line on standard output.")
@click.option("--ready-file", type=PATH, metavar="PATH", help="Write the process id there once events are recorded.")
@click.option(
    "--duration", type=click.FloatRange(min=0), callback=finite, metavar="SECONDS", help="Stop after this time."
)
@click.option("--record", type=PATH, metavar="FILE", help="Also write the raw samples to FILE, for `replay`.")
@click.option("--no-ship", is_flag=True, help="Leave the delivery to a separate `ship`.")
def run(
    path: Path | None,
    shown: bool,
    ready_file: Path | None,
    duration: float | None,
    record: Path | None,
    no_ship: bool,
) -> int:
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
        return die(str(error), error.status)
    found, sources = loaded(path)
    settings = found.config
    numba_cache(settings.output_dir / "cache")
    from monitor import app, display, startup
    from monitor.enrich import HostFactsError
    from monitor.kernel.btf import BtfError
    from monitor.kernel.control import ControlError
    from monitor.procfs import ProcfsError

    if not found.files:
        say(f"no configuration file: profile {settings.profile}, everything below {settings.events_dir.parent}")
    output = sys.stdout.fileno() if shown and sys.stdout is not None else None
    if shown and output is None:
        say("standard output is closed: events are logged, but not shown")
    screen = display.Screen(sys.stderr, where=f"log in {settings.events_dir}", output=output, compact=renderer())
    options = startup.Options(duration, ready_file, record, say=screen.say, show=screen.show, tick=screen.tick)
    options.sources = sources if found.files else None
    options.deliver = settings.storage_type == "elasticsearch" and not no_ship
    try:
        with screen:
            return app.run(settings, options)
    except StartError as error:
        return die(str(error), error.status)
    except (HostFactsError, BtfError, ControlError, ProcfsError) as error:
        return die(str(error))


@main.command("check-config")
@config_option
def check_config(path: Path | None) -> int:
    """Check the configuration; print the values in effect, without secrets.

    Standard output is a whole configuration; standard error says which file and line each value comes from.

    \b
    Example:
      ebpf-monitor check-config --config /etc/ebpf-monitor/config.json
    """
    found, _ = loaded(path)
    show(as_json_text(config.effective(found.config)))
    for name, place in found.places.items():
        say(f"{place}: {name}")
    say("everything else: default values" if found.files else "no configuration file: built-in values")
    return EXIT_OK


@main.command("config-reference")
def config_reference() -> int:
    """Every configuration key with its type, default and meaning, as Markdown.

    \b
    Example:
      ebpf-monitor config-reference | grep commit_
    """
    show(config.reference())
    return EXIT_OK


@main.command()
@config_option
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
        found = module.read(configuration(path).run_dir)
    except module.StatusError as error:
        return die(str(error))
    show(as_json_text(found.document()) if as_json else module.table(found))
    return found.exit_status


@main.command()
@config_option
@click.option(
    "--listen", metavar="[ADDRESS:]PORT", callback=listening, help="Serve /metrics there; by default on 127.0.0.1."
)
@click.option("--textfile", type=PATH, metavar="FILE", help="Write FILE for node_exporter (--collector.textfile.directory).")
def metrics(path: Path | None, listen: tuple[str, int] | None, textfile: Path | None) -> int:
    """The monitor's state as Prometheus metrics: ledger, lag, CPU, memory, disk.

    Needs no privileges but to read run_dir. The metrics have no authentication: listen on loopback or a network of your own.

    \b
    Examples:
      ebpf-monitor metrics
      ebpf-monitor metrics --listen 9877
      ebpf-monitor metrics --textfile /var/lib/prometheus/node-exporter/ebpf-monitor.prom
    """
    from monitor import metrics as module
    from monitor import status as state

    run_dir = configuration(path).run_dir
    if textfile is not None:
        module.textfile(lambda: state.read(run_dir), textfile)
    if listen is None:
        if textfile is None:
            show(module.text(lambda: state.read(run_dir)).decode())
        return EXIT_OK
    server, thread = module.serve(lambda: state.read(run_dir), *listen)
    say(f"serving http://{listen[0]}:{listen[1]}/metrics")
    stop_on_signal(server.shutdown)
    thread.join()
    return EXIT_OK


@main.command()
@config_option
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

    try:
        host = module.Host(configuration(path))
    except config.ConfigError as error:
        if path is not None and not path.exists():
            raise
        host = module.Host(Config(), problem=str(error))
    checks = module.examine(host)
    show(as_json_text(module.document(checks)) if as_json else module.text(checks))
    return module.exit_status(checks)
