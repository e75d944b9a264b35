"""Extreme documents into a real server: each accepted, each recoverable to the byte, and found as far as promised."""

from __future__ import annotations

import base64
import functools
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from monitor import events, mapping
from monitor.cluster import Cluster, ClusterError
from monitor.mapping import Features
from tests import scenes
from tests.elasticsearch.server import Server
from tests.elasticsearch.story import Story, Who, goldens, numbered, store

STORES = {"logsdb": Features(wildcard=False, logsdb=True, ilm=False), "best_compression": mapping.MINIMAL}
WHO = Who("/usr/bin/python3.11")
LONG_PATH = "/" + "/".join(["d" * 255] * 15) + "/" + "f" * 254  # 4,095 bytes
RAW_PATH = b"".join(b"/" + bytes([byte]) * 249 for byte in range(0xF0, 0x100))  # 4,000 bytes


def _socket_name(name: bytes) -> Story:
    story = Story()
    blobs = {
        "executable": scenes.CURL,
        "address": scenes.sockaddr(name),
        "socket": scenes.socket_definition(family=1, kind=1, protocol=0),
    }
    story.bench.kernel.control(1, "socket_connect", blobs, **(WHO.facts | {"nr": scenes.CONNECT, "fd": 5}))
    return story


def _numbers(value: int) -> Story:
    story = Story()
    place = story._opened(WHO, b"/huge", False, 0)
    totals = {"read_count": value, "read_bytes": value, "write_count": value, "write_bytes": value}
    story.bench.kernel.bulk(0, "file_close", ret=0, nr=scenes.CLOSE, **place, **totals)
    return story


EXTREMES: dict[str, Story] = {
    "one argument of 32,767 bytes": Story().executes(WHO, "a" * 32_767),
    "one argument of 32,767 bytes of two each": Story().executes(WHO, "é" * 16_383 + "x"),
    "one argument of 32,764 bytes of four each": Story().executes(WHO, "\U0001f600" * 8_191),
    "one argument of 32,767 bytes that are no text": Story().executes(WHO, "\udcff" * 32_767),
    "10,000 arguments": Story().executes(WHO, *(f"argument-{number}" for number in range(10_000))),
    "an argument of 8,191 bytes": Story().executes(WHO, "b" * 8_191),
    "a command line of 8,191 bytes": Story().executes(WHO, *["c" * 63] * 128),
    "a path of 4,095 bytes": Story().opens(WHO, LONG_PATH),
    "a path of 4,000 bytes that are no text": Story().opens(WHO, RAW_PATH),
    "NUL in a socket's name": _socket_name(b"\0a\0b\0\xff"),
    "lone surrogates": Story().opens(WHO, b"/\xed\xa0\x80\xed\xbf\xbf"),
    "every byte but NUL and slash": Story().opens(WHO, b"/" + bytes(byte for byte in range(1, 256) if byte != 0x2F)),
    "what JSON, KQL and HTML mean something by": Story().opens(WHO, '/{"a":"b\\"}\u2028\u202e<script>*?%0d%0a'),
    "the largest numbers that fit": _numbers((1 << 63) - 1),
    "labels": Story().opens(WHO, "/labels"),
    "labels that a stranger made up": Story().opens(WHO, "/made-up"),
    "numbers that do not fit": _numbers(7),  # made larger below: the kernel's 64 bits always fit
}


@functools.cache
def extremes() -> dict[str, dict[str, Any]]:
    """The last document of each story, by name."""
    found = dict(zip(EXTREMES, numbered(story.documents()[-1] for story in EXTREMES.values()), strict=True))
    found["numbers that do not fit"]["ebpf"]["read"]["bytes"] = (1 << 64) - 1
    found["labels that a stranger made up"]["labels"] = {"team": {"of": 1}, "a": {"b": [1.5, True]}}
    found["labels"]["labels"] = {"team": "web", "a": "1", "a-b": "2", "day": "2026-11-28"}
    return found


@pytest.fixture(scope="module", params=STORES)
def index(
    elasticsearch: Server, request: pytest.FixtureRequest
) -> Iterator[tuple[Cluster, str, dict[str, dict[str, Any]]]]:
    """(cluster, index, documents by name): an index of one kind with all extremes in it."""
    name = f"extreme-{request.param.replace('_', '-')}"
    documents = extremes()
    with Cluster(elasticsearch.config("admin")) as cluster:
        cluster.ask("DELETE", f"/{name}")  # of a run that was broken off
        template = mapping.template(name, STORES[request.param])
        template["index_patterns"] = [name]
        template["template"]["aliases"] = {}
        cluster.need("PUT", f"/_index_template/{name}", template)
        store(cluster, [(name, one) for one in documents.values()])  # asserts that each is accepted
        yield cluster, name, documents
        cluster.need("DELETE", f"/{name}")
        cluster.need("DELETE", f"/_index_template/{name}")


@pytest.mark.parametrize("name", EXTREMES)
def test_the_document_comes_back_as_it_was_sent(
    index: tuple[Cluster, str, dict[str, dict[str, Any]]], name: str
) -> None:
    cluster, where, documents = index
    sent = documents[name]
    got = cluster.need("GET", f"/{where}/_doc/{sent['event']['id']}")["_source"]
    assert orjson.dumps(got) == orjson.dumps(sent)


def found(index: tuple[Cluster, str, dict[str, dict[str, Any]]], query: dict[str, Any]) -> set[str]:
    cluster, where, documents = index
    by_id = {one["event"]["id"]: name for name, one in documents.items()}
    hits = cluster.need("POST", f"/{where}/_search", {"query": query, "size": 100})["hits"]["hits"]
    return {by_id[hit["_id"]] for hit in hits}


def test_long_values_are_found_whole_and_by_a_part(index: tuple[Cluster, str, dict[str, dict[str, Any]]]) -> None:
    shown = index[2]["a path of 4,000 bytes that are no text"]["file"]["path"]
    assert len(shown) > 15_900, "each byte takes four characters"
    for field, value, name in (
        ("file.path", LONG_PATH, "a path of 4,095 bytes"),
        ("filename", LONG_PATH, "a path of 4,095 bytes"),
        ("file.path", shown, "a path of 4,000 bytes that are no text"),
        ("process.args", "b" * 8_191, "an argument of 8,191 bytes"),
        ("process.command_line", " ".join(["c" * 63] * 128), "a command line of 8,191 bytes"),
    ):
        assert found(index, {"term": {field: value}}) == {name}
        part = "*" + value[-40:].replace("\\", "\\\\")
        assert name in found(index, {"wildcard": {field: {"value": part}}})


def test_what_is_not_searchable_says_so(index: tuple[Cluster, str, dict[str, dict[str, Any]]]) -> None:
    assert found(index, {"exists": {"field": "_ignored"}}) == {
        "one argument of 32,767 bytes", "one argument of 32,767 bytes of two each", "one argument of 32,767 bytes that are no text",
        "one argument of 32,764 bytes of four each", "10,000 arguments", "numbers that do not fit",
    }  # fmt: skip


def test_the_exact_bytes_are_recoverable(index: tuple[Cluster, str, dict[str, dict[str, Any]]]) -> None:
    cluster, where, documents = index
    raw = {"a path of 4,000 bytes that are no text": RAW_PATH, "lone surrogates": b"/\xed\xa0\x80\xed\xbf\xbf"}
    for name, path in raw.items():
        got = cluster.need("GET", f"/{where}/_doc/{documents[name]['event']['id']}")["_source"]
        assert base64.b64decode(got["ebpf"]["raw"]["file_path"]) == path


def test_huge_numbers_are_kept_and_the_largest_that_fit_are_found(
    index: tuple[Cluster, str, dict[str, dict[str, Any]]],
) -> None:
    fits = {"term": {"ebpf.read.bytes": (1 << 63) - 1}}
    assert found(index, fits) == {"the largest numbers that fit"}
    assert index[2]["numbers that do not fit"]["ebpf"]["read"]["bytes"] == (1 << 64) - 1


def test_labels_are_found_and_whatever_they_hold_no_document_changes_the_mapping(
    index: tuple[Cluster, str, dict[str, dict[str, Any]]],
) -> None:
    assert found(index, {"term": {"labels.team": "web"}}) == {"labels"}
    assert found(index, {"prefix": {"labels.day": "2026-"}}) == {"labels"}
    assert found(index, {"exists": {"field": "labels.team"}}) == {"labels"}
    assert found(index, {"term": {"labels.team.of": "1"}}) == {"labels that a stranger made up"}
    cluster, where, _ = index
    paths = cluster.need("GET", f"/{where}/_mapping")[where]["mappings"]["properties"]
    assert paths["labels"] == {"type": "flattened", "ignore_above": mapping.TEXT_LIMIT}
    assert set(paths) == set(mapping.mapping()["properties"])


# ---- the shipper's rights, and what a document costs ---------------------------------------------------------------------


def test_the_shippers_role_makes_indices_and_documents_and_can_do_nothing_else(elasticsearch: Server) -> None:
    document = numbered(goldens())[0]
    day, path = "ebpf-events-2026.11.22", f"/_doc/{quote(document['event']['id'])}"
    with Cluster(elasticsearch.config("admin")) as admin, Cluster(elasticsearch.config("ship")) as shipper:
        admin.need("PUT", "/_index_template/ebpf-events", mapping.template("ebpf-events", STORES["logsdb"]))
        try:
            store_as = {"create": {"_index": day, "_id": document["event"]["id"]}}
            body = orjson.dumps(store_as) + b"\n" + orjson.dumps(document) + b"\n"
            headers = {"content-type": "application/vnd.elasticsearch+x-ndjson; compatible-with=8"}
            made = shipper.need("POST", "/_bulk", body, headers)["items"][0]["create"]
            assert made["status"] == 201
            assert admin.need("GET", f"/{day}")[day]["aliases"] == {"ebpf-events": {}}
            again = shipper.need("POST", "/_bulk", body, headers)["items"][0]["create"]
            assert again["status"] == 409
            for method, where, what in (("GET", path, None), ("DELETE", path, None), ("PUT", path, document), ("DELETE", "", None),
                                        ("POST", "/_search", {}), ("PUT", "/_settings", {"index.hidden": True})):  # fmt: skip
                with pytest.raises(ClusterError, match="403"):
                    shipper.ask(method, f"/{day}{where}", what)
        finally:
            admin.need("DELETE", f"/{day}")
            admin.need("DELETE", "/_index_template/ebpf-events")


COPIES = int(os.environ.get("EBPF_MONITOR_CODEC_DOCUMENTS", "2000"))


def test_a_document_takes_fewer_bytes_in_our_stores(
    elasticsearch: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Bytes per document in one merged segment: the goldens over and over, with other times, numbers, pids and paths."""
    stores = {"default": mapping.MINIMAL, **STORES}
    kinds = [one for one in goldens() if events.EVENT[one["ebpf"]["event"]].lane != "made"]
    documents = numbered(_varied(kinds[number % len(kinds)], number) for number in range(COPIES))
    sizes = {}
    with Cluster(elasticsearch.config("admin")) as cluster:
        for name, features in stores.items():
            where = f"codec-{name.replace('_', '-')}"
            settings = mapping.settings(where, features)
            if name == "default":
                del settings["codec"]
            cluster.ask("DELETE", f"/{where}")
            cluster.need("PUT", f"/{where}", {"settings": {"index": settings}, "mappings": mapping.mapping(features)})
            for first in range(0, COPIES, 1000):
                store(cluster, [(where, one) for one in documents[first : first + 1000]])
            cluster.need("POST", f"/{where}/_forcemerge?max_num_segments=1")
            cluster.need("POST", f"/{where}/_flush?force=true")
            cluster.need("POST", f"/{where}/_refresh")  # lets go of the segments before the merge
            size = cluster.need("GET", f"/{where}/_stats/store")["_all"]["primaries"]["store"]["size_in_bytes"]
            sizes[name] = size / COPIES
            cluster.need("DELETE", f"/{where}")
    line = statistics.fmean(len(orjson.dumps(one)) for one in documents)
    with capsys.disabled():
        print(
            f"\nbytes per document ({line:.0f} as a line): "
            + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
        )
    assert max(sizes["logsdb"], sizes["best_compression"]) < 0.8 * sizes["default"] < 0.8 * line


def _varied(document: dict[str, Any], number: int) -> dict[str, Any]:
    changed = orjson.loads(orjson.dumps(document))
    changed["ebpf"]["timestamp_ns"] += number * 1_000_003
    if "process" in changed:
        changed["process"]["pid"] = 1000 + number % 997
    if "path" in changed.get("file", {}):
        changed["file"]["path"] = f"/srv/data/{number % 389}/{changed['file']['name']}"
    return changed
