"""The command `ship`: a process of its own with the configuration's own credentials, signals included.

Owns the surroundings of a shipper that nobody started but a person or systemd.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from monitor.config_keys import Config
from monitor.ship.runner import Control, Runner, ShipError
from monitor.ship.shipper import Hooks
from monitor.ship.state import DIRECTORY
from monitor.sinks import credentials
from monitor.sinks.credentials import CredentialError
from monitor.sinks.elasticsearch import Connection, SetupError

EXIT_CONFIG = 78


def ship_dir(config: Config) -> Path:
    """The directory of the checkpoint, made when it is not there. Raises ShipError."""
    path = config.output_dir / DIRECTORY
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ShipError(f"cannot make {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ShipError(f"{path} belongs to another user: run `ship` as the user that delivers, or as root")
    return path


def connector(config: Config) -> Callable[[], Connection]:
    """Connections with the credentials as they are when it is called. The first call is made here. Raises ShipError (78)."""

    def connect() -> Connection:
        try:
            return Connection(config.es_config, credentials.read(config.es_config))
        except CredentialError as error:
            raise SetupError("credentials", str(error)) from None

    try:
        connect().close()
    except SetupError as error:
        raise ShipError(str(error), EXIT_CONFIG) from None
    return connect


def signals(control: Control) -> None:
    """SIGTERM and SIGINT end, SIGHUP reads the credentials again."""

    def stop(_number: int, _frame: object) -> None:
        control.stopping = True

    def reload(_number: int, _frame: object) -> None:
        control.reload = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, reload)


def run(
    config: Config, say: Callable[[str], None], *, once: bool, changed: Callable[[], Config | None] = lambda: None
) -> int:
    """Delivers until stopped, or (`once`) until all that is durable is delivered; the exit status. Raises ShipError.

    `changed` is asked often for a configuration to take in place of the present one.
    """
    control, connects = Control(), [connector(config)]
    warning = connects[0]().warning
    if warning:
        say(f"WARNING: {warning}")

    def look() -> None:
        wanted = changed()
        if wanted is None:
            return
        try:
            connects[0] = connector(wanted)
        except ShipError as error:
            say(f"the changed configuration is not taken: {error}")
        else:
            runner.configure(wanted)

    runner = Runner(config, ship_dir(config), Hooks(lambda: connects[0](), say), control, tick=look)
    signals(control)
    return runner.once() if once else runner.run()
