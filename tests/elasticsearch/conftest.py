"""One real server for a whole run of the tests; each test has indices of its own day or an own index name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.elasticsearch.server import Server


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[Server]:
    """A running server, started once. A test that stops or kills it starts it again."""
    server = Server.make()
    try:
        server.start()
        yield server
    finally:
        server.remove()
