"""Pytest plugin for guests: of the tests on the real kernel only those that the one monitor with profile `full` serves.

An emulated machine takes a minute to start a monitor. What else the modules are run with (`trace`, the control lane over a perf
buffer, kernels without bpf_rdonly_cast) and the tests that start monitors of their own are `make test`'s.
"""

from __future__ import annotations

import pytest

KEYS = {"profile": "full"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests of every other monitor."""
    kept, gone = [], []
    for item in items:
        assert isinstance(item, pytest.Function)
        given = item.callspec.params.get("running", KEYS) if hasattr(item, "callspec") else KEYS
        (kept if given == KEYS else gone).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=gone)
