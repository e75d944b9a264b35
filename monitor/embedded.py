"""The configuration of a start without any file: everything below the current directory, everything recorded.

Owns only these few values, which pass through the same checks as a file's; never writes a file.
"""

from __future__ import annotations

import json
from pathlib import Path

from monitor import config
from monitor.config_keys import Config


def embedded(directory: Path) -> Config:
    """Profile full, log, outputs and state in `var/` of `directory` (absolute). Raises ConfigError."""
    values = {"profile": "full"} | {
        key: str(directory / "var" / name)
        for key, name in (("events_dir", "events"), ("output_dir", "outputs"), ("run_dir", "run"))
    }
    return config.loads(json.dumps(values).encode(), "(built-in configuration)")
