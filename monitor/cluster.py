"""A cluster as somebody with more rights than the shipper sees it: requests in JSON, and whose credentials they carry.

Owns the reading of a credentials file and the sentence for an answer that is no success; knows nothing of documents.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import orjson

from monitor import config_file
from monitor.config_keys import EsConfig
from monitor.sinks import credentials
from monitor.sinks.elasticsearch import Connection

_NAMES = {"ES_USER": "es_user", "ES_PASSWORD": "es_password", "ES_API_KEY": "api_key"}
_PAGE = 5_000
_MOST_BYTES = 256 << 20  # of one page of documents: none of them is longer than some 50 kB


class ClusterError(Exception):
    """The cluster said no, or something that makes no sense; the text is a sentence for people."""


def with_credentials(es: EsConfig, path: Path | None) -> EsConfig:
    """`es` with the credentials of an environment file: lines ES_USER=, ES_PASSWORD=, ES_API_KEY=. None: as configured.

    Raises ConfigError for a file that others can read or change, and for a line that is none of these.
    """
    if path is None:
        return es
    data, status = config_file.read_trusted(path)
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise config_file.ConfigError(
            f"a secret that others can read; take that away: chmod o-rw {path}", file=str(path)
        )
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if name not in _NAMES or not equals:
            known = ", ".join(_NAMES)
            raise config_file.ConfigError(f"NAME=VALUE expected, NAME one of {known}", file=str(path), line=number)
        found[_NAMES[name]] = value.strip().strip("\"'")
    if ("api_key" in found) == ("es_password" in found) or ("es_password" in found) != ("es_user" in found):
        raise config_file.ConfigError("either ES_API_KEY, or ES_USER and ES_PASSWORD", file=str(path))
    empty = replace(es, es_user="", es_password="", api_key="", password_file=None, api_key_file=None)
    user, password, key = (found.get(name, "") for name in ("es_user", "es_password", "api_key"))
    return replace(empty, es_user=user, es_password=password, api_key=key)


class Cluster:
    """Requests to one cluster (or Kibana) with JSON in and out. A context manager: closes its connection."""

    def __init__(self, es: EsConfig, prefix: str = "", headers: dict[str, str] | None = None) -> None:
        """Raises CredentialError and SetupError. `prefix` stands before every path."""
        self.user = es.es_user or ("an API key" if es.api_key or es.api_key_file else "nobody")
        self._connection = Connection(es, credentials.read(es), parallel=1)
        self._prefix, self._headers = prefix, headers or {}

    @property
    def warning(self) -> str:
        """What must be said before anything is sent; "" when all is verified."""
        return self._connection.warning

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(status, document) of one request; whatever is no JSON is an empty document. `body`: bytes, or sent as JSON.

        Raises EsError, and ClusterError for 401 and 403.
        """
        sent = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        reply = self._connection.perform(
            method, self._prefix + path, sent, self._headers | (headers or {}), most_bytes=_MOST_BYTES
        )
        try:
            found = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            found = {}
        if reply.status == 401:
            raise ClusterError(f"{self.user} is refused (401): wrong user, password or key, or it has expired")
        if reply.status == 403:
            raise ClusterError(f"{self.user} may not do this (403): {method} {path}: {reason(found)}")
        return reply.status, found

    def need(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The document of a request that must succeed. Raises EsError and ClusterError."""
        status, found = self.ask(method, path, body, headers)
        if status not in (200, 201):
            raise ClusterError(f"{method} {path}: {status}: {reason(found)}")
        return found

    def pages(
        self, indices: str, query: dict[str, Any], *, source: bool, after: str = "", size: int = _PAGE
    ) -> Iterator[list[Any]]:
        """Documents that a query finds, in the order of event.id, page by page. Raises EsError and ClusterError."""
        order = [{"event.id": {"order": "asc", "unmapped_type": "keyword"}}]
        body: dict[str, Any] = {
            "size": size,
            "query": query,
            "sort": order,
            "_source": source,
            "track_total_hits": False,
        }
        while True:
            if after:
                body["search_after"] = [after]
            found = self.need("POST", f"/{quote(indices, safe='*,')}/_search?ignore_unavailable=true", body)
            if found.get("timed_out") or found.get("_shards", {}).get("failed"):
                raise ClusterError(f"{indices}: not every shard answered: {found.get('_shards')}")
            hits = found.get("hits", {}).get("hits", [])
            if hits:
                yield hits
            if len(hits) < size:
                return
            after = hits[-1]["sort"][0]


def reason(document: Any) -> str:
    """What an answer of Elasticsearch or Kibana says went wrong, as one line."""
    error = document.get("error", document) if isinstance(document, dict) else document
    if not isinstance(error, dict):
        return str(error or "no reason given")
    words = []
    while isinstance(error, dict):
        text = error.get("reason") or error.get("message")
        if text and text not in words:
            words.append(str(text))
        error = error.get("caused_by")
    return ": ".join(words) or str(document)[:300]
