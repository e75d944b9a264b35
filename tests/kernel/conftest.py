"""The fixtures of monitor_process for all tests on the real kernel; nothing of its own."""

from __future__ import annotations

from tests.kernel.monitor_process import monitor, monitors, place, programs, public, running, script

__all__ = ["monitor", "monitors", "place", "programs", "public", "running", "script"]
