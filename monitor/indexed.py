"""The questions of `search`, asked of the index: the same filter, the same lines in the same order.

The server narrows down by fields; what it finds goes through the filter itself, so that both say the same of every line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from monitor import fields
from monitor.clock import rfc3339
from monitor.cluster import Cluster, ClusterError
from monitor.search import FAMILIES, GLOB, Filter, Found

_PAGE = 1_000  # a document with all its arguments may have 50 kB
_PATHS = ("file.path", "file.Ext.original.path", "process.executable", "ebpf.socket.path", "ebpf.socket.peer_path")
_NAMES = ("process.name", "process.thread.name")

Query = dict[str, Any]


def _any(queries: Sequence[Query]) -> Query:
    return {"bool": {"should": list(queries), "minimum_should_match": 1}}


def _wildcard(pattern: str) -> str:
    r"""A glob as a wildcard of Elasticsearch that finds at least the same: a class [...] may be any character."""
    found, at = "", 0
    for match in GLOB.finditer(pattern):
        found += re.sub(r"([\\*?])", r"\\\1", pattern[at : match.start()])
        found += "?" if match[0].startswith("[") else match[0]
        at = match.end()
    return found + re.sub(r"([\\*?])", r"\\\1", pattern[at:])


def _globs(names: Sequence[str], patterns: Sequence[str]) -> Query:
    """Any of the fields like any of the patterns; a value that was too long to be indexed may be, too."""
    queries: list[Query] = [{"wildcard": {name: {"value": _wildcard(one)}}} for name in names for one in patterns]
    return _any([*queries, {"terms": {"_ignored": list(names)}}])


def query(wanted: Filter, host: str | None) -> Query:
    """A query that finds every document that `wanted` matches, and perhaps more. `host`: an agent.id or host name; None: all."""
    every: list[Query] = []
    if host is not None:
        every.append(_any([{"term": {"agent.id": host}}, {"term": {"host.name": host}}]))
    if wanted.pids:
        every.append({"terms": {"process.pid": list(wanted.pids)}})
    if wanted.containers:
        every.append(_any([{"prefix": {"container.id": one}} for one in wanted.containers]))
    if wanted.paths:
        every.append(_globs([one for one in _PATHS if one in fields.all_paths()], wanted.paths))
    if wanted.names:
        every.append(_globs(_NAMES, wanted.names))
    if wanted.users:
        every.append(_any([{"terms": {name: list(wanted.users)}} for name in ("user.id", "user.name")]))
    if wanted.events:
        families = [{"prefix": {"ebpf.event": f"{one}_"}} for one in wanted.events if one in FAMILIES]
        every.append(_any([{"terms": {"ebpf.event": list(wanted.events)}}, *families]))
    if wanted.failed:
        every.append({"term": {"event.outcome": "failure"}})
    times = {"gte": wanted.since_ns, "lte": wanted.until_ns}
    span = {side: rfc3339(at) for side, at in times.items() if at is not None}
    if span:
        every.append({"range": {"@timestamp": span}})
    return {"bool": {"filter": every}} if every else {"match_all": {}}


@dataclass
class IndexSearch:
    """Finds a filter's documents in the indices of a cluster. `host`: see `query`."""

    cluster: Cluster
    indices: str
    wanted: Filter
    host: str | None = None
    unreadable_lines: int = 0

    def all(self) -> Iterator[Found]:
        """Every match, each run of the monitor after the other, its lines in the log's order. Raises ClusterError, EsError."""
        asked = query(self.wanted, self.host)
        for epoch in self._epochs(asked):
            of_epoch = {"range": {"event.id": {"gte": epoch, "lt": epoch + "~"}}}
            for page in self.cluster.pages(
                self.indices, {"bool": {"filter": [asked, of_epoch]}}, source=True, size=_PAGE
            ):
                for hit in page:
                    found = self.wanted.match(orjson.dumps(hit["_source"]))
                    if found is not None:
                        yield found

    def _epochs(self, asked: Query) -> list[str]:
        """The runs (host-epoch) that have matches, oldest first: from one to the next by jumping over its ids."""
        found: list[tuple[str, str]] = []
        after = ""
        while True:
            page = next(self.cluster.pages(self.indices, asked, source=True, after=after, size=1), None)
            if page is None:
                return [epoch for _, epoch in sorted(found)]
            source = page[0]["_source"]
            try:
                epoch = source["event"]["id"].rpartition("-")[0]
                found.append((str(source["@timestamp"]), epoch))
            except (KeyError, TypeError, AttributeError):
                raise ClusterError(
                    f"{self.indices}: {page[0].get('_id')!r} in {page[0].get('_index')} is no document of ours"
                ) from None
            after = epoch + "~"
