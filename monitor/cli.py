"""The commands that people type; no logic of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from monitor import app, config


@click.group()
def main() -> None:
    """Records what really happened on this host."""


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path))
@click.option("--duration", type=float)
@click.option("--ready-file", type=click.Path(path_type=Path))
def run(path: Path | None, duration: float | None, ready_file: Path | None) -> None:
    """Capture."""
    found = config.find(path)
    assert found is not None
    try:
        sys.exit(app.run(config.load(found), app.Options(duration=duration, ready_file=ready_file)))
    except app.StartError as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
