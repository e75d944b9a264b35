"""What Elasticsearch is told about the documents: mapping, index template, retention policy and the shipper's role.

One declaration (the catalogue) and what a server can do (`Features`) give each of them; never talks to a server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from monitor import events, fields
from monitor.model import SCHEMA

PRIORITY = 500
"""Above Elastic's own templates: 100 for `logs-*-*`, 200 for the integrations'."""
RETENTION_DAYS = 30
TEXT_LIMIT, ARGS_LIMIT, PATH_LIMIT = 1024, 8191, 16_384
"""Characters up to which a keyword is searchable. Lucene refuses terms above 32,766 bytes, and with one the whole document: 8,191
characters of four bytes are the most that never can be one. A path of 4,096 bytes that are no text takes 16,384 characters, each
byte escaped; `longest_term` says why a path of at most so many is no longer term either."""
_ARGS = ("process.args", "process.command_line")
_PATH = re.compile(r"(?:.+[._])?(?:path|executable|working_directory)")


@dataclass(frozen=True)
class Features:
    """What differs between servers. The minimal distribution has none of it."""

    wildcard: bool = True
    """the field type: infix searches on long values without reading every term"""
    logsdb: bool = True
    """the index mode: sorted by host and time, better compressed"""
    ilm: bool = True
    """index lifecycle management"""


FULL, MINIMAL = Features(), Features(wildcard=False, logsdb=False, ilm=False)


def longest_term(original_bytes: int) -> int:
    """The most bytes of a searchable path of `original_bytes` bytes as the kernel has it.

    An escaped byte takes four characters of one byte each, a clean one stays as it is (at least a quarter of a character).
    """
    escaped = min(original_bytes, PATH_LIMIT // 4)
    return 4 * escaped + original_bytes - escaped


def limit(path: str) -> int:
    """Characters up to which a keyword field is searchable."""
    return ARGS_LIMIT if path in _ARGS else PATH_LIMIT if _PATH.fullmatch(path) else TEXT_LIMIT


def _property(path: str, es: str, features: Features) -> dict[str, Any]:
    if es == "flattened":
        return {"type": es, "ignore_above": TEXT_LIMIT}
    if es == "object":
        return {"type": es, "enabled": False}
    if es != "keyword":
        return {"type": es}
    long = limit(path) > TEXT_LIMIT
    return {"type": "wildcard" if long and features.wildcard else es, "ignore_above": limit(path)}


def _place(properties: dict[str, Any], path: str, leaf: dict[str, Any]) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        properties = properties.setdefault(parent, {"properties": {}}).get("properties")
        if properties is None:
            raise ValueError(f"{path}: {parent} is a field and an object")
    if name in properties:
        raise ValueError(f"{path} is a field and an object")
    properties[name] = leaf


def mapping(features: Features = FULL) -> dict[str, Any]:
    """The mapping of all events: nothing dynamic, aliases for the original tool's flat names.

    What people choose the names of (`labels`) is `flattened`: no document, also not one that a stranger on some host made up,
    gives the index a field or the type of one, which would have the documents of others refused.
    """
    properties: dict[str, Any] = {}
    found = fields.all_paths()
    for path in sorted(found):
        _place(properties, path, _property(path, found[path], features))
    for alias, target in events.ALIASES.items():
        if target not in found:
            raise ValueError(f"alias {alias}: no event has a field {target}")
        _place(properties, alias, {"type": "alias", "path": target})
    return {"dynamic": False, "_meta": meta(), "properties": properties}


def meta() -> dict[str, Any]:
    """What tells our templates, policies and indices from others, and their version."""
    return {"ebpf_monitor": {"schema": SCHEMA}}


def settings(index: str, features: Features = FULL) -> dict[str, Any]:
    """Index settings, below `index`. A value that does not fit its field costs that field's index entry, never the document.

    The source is kept as it was sent also in logsdb, where it could be put together again from the columns: an index then
    answers with the log's own bytes. Replicas: one as soon as there is a second node.
    """
    found: dict[str, Any] = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "1s"}
    inner: dict[str, Any] = {"ignore_malformed": True}
    if features.logsdb:
        found |= {"mode": "logsdb", "mapping": inner | {"source": {"mode": "stored"}}}
    else:
        found |= {"codec": "best_compression", "mapping": inner}
    return found | ({"lifecycle": {"name": index}} if features.ilm else {})


def template(index: str, features: Features = FULL) -> dict[str, Any]:
    """The composable index template `index` for `index`-DATE. No data stream: retries across a rollover could duplicate."""
    return {
        "index_patterns": [f"{index}-*"],
        "priority": PRIORITY,
        "version": SCHEMA,
        "_meta": meta() | {"description": "documents of ebpf-monitor"},
        "template": {
            "settings": {"index": settings(index, features)},
            "mappings": mapping(features),
            "aliases": {index: {}},
        },
    }


def policy(days: int = RETENTION_DAYS) -> dict[str, Any]:
    """The ILM policy: an index is deleted `days` days after it was made. (Merging or moving would make it read-only.)"""
    return {
        "policy": {
            "_meta": meta(),
            "phases": {
                "hot": {"min_age": "0ms", "actions": {"set_priority": {"priority": 100}}},
                "delete": {"min_age": f"{days}d", "actions": {"delete": {}}},
            },
        }
    }


def role(index: str) -> dict[str, Any]:
    """The least that the shipper needs: it makes documents and indices, sees which mapping they have, and reads nothing.

    A host that was broken into must not be able to read, change or delete what others recorded.
    """
    privileges = ["create_doc", "auto_configure"]
    return {"cluster": ["monitor"], "indices": [{"names": [f"{index}-*"], "privileges": privileges}]}
