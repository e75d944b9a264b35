"""Both mappings come from the catalogue, say the same of every field, and let no value endanger its document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from monitor import events, fields, mapping
from monitor.mapping import FULL, MINIMAL, Features

EACH = pytest.mark.parametrize("features", [FULL, MINIMAL], ids=["full", "minimal"])
LONG = ("file.path", "process.executable", "process.working_directory", "process.args", "process.command_line")
LONG += ("file.Ext.original.path", "ebpf.socket.path", "ebpf.socket.peer_path")


def leaves(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, mapping) of every field."""
    for name, leaf in properties.items():
        if "properties" in leaf:
            yield from leaves(leaf["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, leaf


def mapped(features: Features) -> dict[str, dict[str, Any]]:
    """Every field of a mapping by its path."""
    return dict(leaves(mapping.mapping(features)["properties"]))


@EACH
def test_mapping_is_closed_and_versioned(features: Features) -> None:
    found = mapping.mapping(features)
    assert found["dynamic"] is False
    assert found["_meta"] == {"ebpf_monitor": {"schema": 1}}
    assert set(mapped(features)) == set(fields.all_paths()) | set(events.ALIASES)


@EACH
def test_mapping_types(features: Features) -> None:
    wanted = {
        "@timestamp": {"type": "date_nanos"},
        "source.ip": {"type": "ip"},
        "destination.port": {"type": "long"},
        "file.name": {"type": "keyword", "ignore_above": 1024},
        "user.id": {"type": "keyword", "ignore_above": 1024},
        "ebpf.path_source": {"type": "keyword", "ignore_above": 1024},
        "ebpf.timestamp_ns": {"type": "long"},
        "ebpf.claimed": {"type": "boolean"},
        "ebpf.raw": {"type": "object", "enabled": False},
    }
    for name in LONG:
        limit = 8191 if name in ("process.args", "process.command_line") else 16384
        wanted[name] = {"type": "wildcard" if features.wildcard else "keyword", "ignore_above": limit}
    found = mapped(features)
    assert {name: found[name] for name in wanted} == wanted


def test_the_two_mappings_differ_in_nothing_but_the_type_of_long_values() -> None:
    full, minimal = mapped(FULL), mapped(MINIMAL)
    differing = {path for path in full if full[path] != minimal[path]}
    assert differing == {path for path, es in fields.all_paths().items() if es == "keyword" and mapping.limit(path) > 1024}
    assert set(LONG) <= differing


def test_long_values_stay_searchable_as_far_as_promised() -> None:
    assert len("\\xff" * 4096) <= mapping.PATH_LIMIT, "a path of 4,096 bytes, none of them text"
    assert mapping.ARGS_LIMIT >= 8191, "an argument or a command line"


def test_no_searchable_value_is_longer_than_a_term_of_lucene() -> None:
    path = 48 * 256 + 4096  # the deepest directory that the programs walk, and a relative name below it
    assert mapping.longest_term(path) <= 32766, "Lucene refuses it, and Elasticsearch the document"
    assert mapping.longest_term(10) == 40
    assert mapping.ARGS_LIMIT * 4 <= 32766


def test_flat_names_of_the_original_tool_are_aliases() -> None:
    names = "timestamp_ns datetime pid ppid uid comm syscall filename fd ret error_code dest_ip dest_ipv6 dest_port sa_family"
    names += " count bytes_rw"
    assert set(events.ALIASES) == set(names.split())
    found = mapped(FULL)
    for alias, target in events.ALIASES.items():
        assert found[alias] == {"type": "alias", "path": target}
        assert found[target]["type"] not in ("alias", "object")


def test_a_field_that_is_also_an_object_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMON", (*events.COMMON, events.Shown("host", "keyword", "an object already")))
    with pytest.raises(ValueError, match="host"):
        mapping.mapping()


def test_an_alias_without_a_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ALIASES", {"name": "no.such.field"})
    with pytest.raises(ValueError, match=r"no\.such\.field"):
        mapping.mapping()


@pytest.mark.parametrize("index", ["ebpf-events", "logs-ebpf.events"])
@EACH
def test_template_takes_the_indices_of_its_name(index: str, features: Features) -> None:
    found = mapping.template(index, features)
    assert found["index_patterns"] == [f"{index}-*"]
    assert found["priority"] > 200, "above those of Elastic's integrations"
    assert "data_stream" not in found
    assert found["template"]["mappings"] == mapping.mapping(features)
    assert found["template"]["aliases"] == {index: {}}
    assert found["_meta"]["ebpf_monitor"]["schema"] == 1
    json.dumps(found)


def test_settings_follow_what_the_server_has() -> None:
    full, minimal = mapping.settings("x", FULL), mapping.settings("x", MINIMAL)
    assert (full["mode"], full["lifecycle"]) == ("logsdb", {"name": "x"})
    assert full["mapping"]["source"]["mode"] == "stored", "the log's own bytes come back"
    assert minimal["codec"] == "best_compression"
    assert not {"mode", "lifecycle"} & set(minimal)
    assert full["mapping"]["ignore_malformed"] is minimal["mapping"]["ignore_malformed"] is True
    assert full["refresh_interval"] == minimal["refresh_interval"] == "1s"


def test_policy_only_deletes() -> None:
    phases = mapping.policy(7)["policy"]["phases"]
    assert set(phases) == {"hot", "delete"}
    assert phases["delete"] == {"min_age": "7d", "actions": {"delete": {}}}
    assert set(phases["hot"]["actions"]) == {"set_priority"}, "whatever makes an index read-only would stop late events"


def test_the_shippers_role_can_change_and_delete_nothing() -> None:
    (indices,) = mapping.role("ebpf-events")["indices"]
    assert indices["names"] == ["ebpf-events-*"]
    assert set(indices["privileges"]) == {"create_doc", "auto_configure"}
    assert mapping.role("ebpf-events")["cluster"] == ["monitor"]
