"""The commands that people type: options, help and exit status of each. Never decides anything itself."""

from monitor.cli import capture, delivery, provisioning, questions  # noqa: F401 - importing them adds their commands
from monitor.cli.program import main

__all__ = ["main"]
