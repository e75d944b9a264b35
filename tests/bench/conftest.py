"""The order of the benchmark: auditd, when it is asked for, after everything else that is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import auditd


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the file with the audit section last: other files would be measured with the slow path that it leaves."""
    try:
        wanted = auditd.requested()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    if wanted:
        items.sort(key=lambda item: item.path == Path(__file__).with_name("test_bench.py"))
