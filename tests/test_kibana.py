"""Kibana's objects and rules: whole references, queries that are KQL over fields that exist, a form that Kibana imports."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from monitor import dashboards, events, kibana, rules
from monitor import fields as document_fields
from monitor.config_keys import EsConfig
from tests import kql

INDEX = EsConfig().es_index
OBJECTS = kibana.objects(INDEX)
RULES = rules.documents(INDEX)
FIELDS = set(document_fields.all_paths()) | set(events.ALIASES) | {"_ignored"}
PANELS = [
    (dashboard.title, panel)
    for dashboard in dashboards.DASHBOARDS
    for panel in dashboard.panels
    if kibana.known(panel.needs)
]
each_panel = pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=lambda panel: panel.title)
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["type"] == kind]


def shown_panels() -> Iterator[dict[str, Any]]:
    for dashboard in of_kind("dashboard"):
        yield from json.loads(dashboard["attributes"]["panelsJSON"])


def queries(node: Any) -> Iterator[str]:
    """Every KQL text in an object, also in the JSON texts inside it."""
    if isinstance(node, str) and node.startswith(("{", "[")):
        yield from queries(json.loads(node))
    elif isinstance(node, list):
        for one in node:
            yield from queries(one)
    elif isinstance(node, dict):
        if node.get("language") == "kuery":
            yield node["query"]
        for inner in node.values():
            yield from queries(inner)


def test_every_reference_is_to_an_object_of_the_same_file() -> None:
    there = {(one["type"], one["id"]) for one in OBJECTS}
    assert len(there) == len(OBJECTS)
    wanted = {(reference["type"], reference["id"]) for one in OBJECTS for reference in one["references"]}
    assert wanted <= there
    assert ("index-pattern", of_kind("index-pattern")[0]["id"]) in wanted


def test_the_five_dashboards_are_there_health_first() -> None:
    titles = [one["attributes"]["title"] for one in of_kind("dashboard")]
    words = ["health and losses", "overview", "processes", "files", "network"]
    assert titles == [f"ebpf-monitor: {word}" for word in words]


def test_ids_are_stable_and_those_of_another_index_are_others() -> None:
    assert kibana.objects(INDEX) == OBJECTS
    others = {one["id"] for one in kibana.objects("logs-ebpf.events")}
    assert not others & {one["id"] for one in OBJECTS}
    for one in OBJECTS:
        uuid.UUID(one["id"])


def test_objects_of_another_index_are_about_it() -> None:
    (view,) = [one for one in kibana.objects("logs-ebpf.events") if one["type"] == "index-pattern"]
    assert view["attributes"]["title"] == "logs-ebpf.events-*"
    assert view["attributes"]["timeFieldName"] == "@timestamp"


def test_every_query_is_kql_over_fields_that_exist() -> None:
    found = {text for one in OBJECTS for text in queries(one)} | {rule["query"] for rule in RULES}
    assert len(found) > 50
    unknown = {text: kql.fields(text) - FIELDS for text in found if kql.fields(text) - FIELDS}
    assert not unknown


def test_every_event_that_a_query_names_is_in_the_catalogue() -> None:
    for text in {text for one in OBJECTS for text in queries(one)} | {rule["query"] for rule in RULES}:
        for listed in re.findall(r"ebpf\.event: (\([^)]*\)|\w+)", text):
            assert set(re.findall(r"\w+", listed)) - {"or"} <= set(events.EVENT), text


@each_panel
def test_panel_counts_over_fields_that_exist(panel: dashboards.Panel) -> None:
    assert set(panel.rows) <= FIELDS
    assert {metric.field for metric in panel.metrics} - {""} <= FIELDS
    assert panel.by < len(panel.metrics)
    assert (panel.kind == "number") == (not panel.rows and not panel.groups and panel.kind != "bars")


@each_panel
def test_lens_columns_are_all_used_and_all_there(panel: dashboards.Panel) -> None:
    found = kibana.lens(panel, INDEX)
    layer = found["state"]["datasourceStates"]["formBased"]["layers"][kibana.LAYER]
    assert list(layer["columns"]) == layer["columnOrder"]
    shown = json.dumps(found["state"]["visualization"])
    assert all(f'"{name}"' in shown for name in layer["columnOrder"])
    for column in layer["columns"].values():
        if column["operationType"] == "terms":
            assert column["params"]["orderBy"]["columnId"] in layer["columns"]
        assert column["isBucketed"] == (column["operationType"] in ("terms", "date_histogram", "filters"))


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    for dashboard in of_kind("dashboard"):
        panels = json.loads(dashboard["attributes"]["panelsJSON"])
        assert len({panel["panelIndex"] for panel in panels}) == len(panels) > 5
        for one, other in itertools.combinations([panel["gridData"] for panel in panels], 2):
            apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert all(panel["gridData"]["x"] + panel["gridData"]["w"] <= 48 for panel in panels)


def test_every_panel_has_its_reference_in_its_dashboard() -> None:
    for dashboard in of_kind("dashboard"):
        named = {reference["name"] for reference in dashboard["references"]}
        for panel in json.loads(dashboard["attributes"]["panelsJSON"]):
            if panel["type"] == "search":
                assert f"{panel['panelIndex']}:{panel['panelRefName']}" in named
            else:
                for reference in panel["embeddableConfig"]["attributes"]["references"]:
                    assert f"{panel['panelIndex']}:{reference['name']}" in named


def test_versions_are_of_one_kibana_and_not_newer_than_the_oldest_supported() -> None:
    for one in OBJECTS:
        assert one["coreMigrationVersion"] == "8.8.0"
        assert tuple(map(int, one["typeMigrationVersion"].split("."))) <= (8, 8, 0)


def test_what_the_catalogue_does_not_have_yet_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {name: kind for name, kind in events.EVENT.items() if name != "process_exec"}
    needing = dashboards.Panel("x", "number", "ebpf.event: process_exec", needs=("process_exec",))
    monkeypatch.setattr(dashboards, "DASHBOARDS", (dashboards.Dashboard("one", "", (needing,)),))
    assert '\\"title\\": \\"x\\"' in json.dumps(kibana.objects(INDEX))
    monkeypatch.setattr(events, "EVENT", without)
    assert '\\"title\\": \\"x\\"' not in json.dumps(kibana.objects(INDEX))


def test_ndjson_is_one_object_on_each_line() -> None:
    lines = kibana.ndjson(OBJECTS).splitlines()
    assert [json.loads(line) for line in lines] == OBJECTS


def test_there_are_at_least_fifteen_rules_each_of_its_own_id_and_name() -> None:
    assert len(RULES) >= 15
    assert len({rule["rule_id"] for rule in RULES}) == len({rule["name"] for rule in RULES}) == len(RULES)


@each_rule
def test_rule_has_what_kibanas_import_wants(rule: dict[str, Any]) -> None:
    assert {"rule_id", "name", "description", "risk_score", "severity", "type", "query", "language", "index"} <= set(
        rule
    )
    assert rule["type"] in ("query", "threshold", "new_terms")
    assert rule["severity"] in ("low", "medium", "high", "critical")
    assert rule["index"] == [f"{INDEX}-*"]
    assert rule["enabled"] is False, "which rules run is the site's decision"
    for threat in rule["threat"]:
        assert re.fullmatch(r"TA\d{4}", threat["tactic"]["id"])
        assert re.fullmatch(r"T\d{4}", threat["technique"][0]["id"])
    grouped = rule.get("new_terms_fields", []) + rule.get("threshold", {}).get("field", [])
    assert set(grouped) <= FIELDS
