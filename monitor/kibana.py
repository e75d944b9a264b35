"""Kibana's saved objects: data view, saved searches and dashboards, from the declarations in `monitor.dashboards`.

Owns their form, as Kibana 8.8 and later import it (`coreMigrationVersion` tells it from which version to migrate). Lens panels
stand inside their dashboard, so that nothing is imported twice under two names. Never talks to Kibana.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monitor import dashboards, events
from monitor.dashboards import Dashboard, Metric, Panel, SavedSearch

CORE_VERSION, PANEL_VERSION = "8.8.0", "8.8.0"
TYPE_VERSIONS = {"index-pattern": "8.0.0", "search": "8.0.0", "dashboard": "8.7.0"}
LAYER, RECORDS = "layer", "___records___"
_WIDE, _HIGH = 48, 15  # Kibana's grid has 48 columns
_NAMESPACE = uuid.UUID("6d8ff8a6-1f0b-5a0f-9f5c-0d8f4b6a2c11")

Object = dict[str, Any]


@dataclass(frozen=True)
class _Names:
    """How objects of one index are called, so that two installations in one Kibana do not overwrite each other."""

    index: str

    @property
    def data_view(self) -> str:
        """Its id."""
        return self.of("data view")

    def of(self, what: str) -> str:
        """The stable id of an object."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.index} {what}"))


def known(needs: Sequence[str]) -> bool:
    """Whether the catalogue has all these events: what needs another is left out until it has."""
    return set(needs) <= set(events.EVENT)


def _reference(names: _Names, name: str) -> Object:
    return {"type": "index-pattern", "id": names.data_view, "name": name}


def _object(kind: str, identity: str, attributes: Object, references: list[Object]) -> Object:
    return {
        "type": kind, "id": identity, "attributes": attributes, "references": references,
        "coreMigrationVersion": CORE_VERSION, "typeMigrationVersion": TYPE_VERSIONS[kind], "managed": False,
    }  # fmt: skip


def _data_view(names: _Names) -> Object:
    attributes = {"title": f"{names.index}-*", "name": f"ebpf-monitor ({names.index})", "timeFieldName": "@timestamp"}
    return _object("index-pattern", names.data_view, attributes, [])


def _source(query: str, names: _Names | None) -> Object:
    source: Object = {"query": {"query": query, "language": "kuery"}, "filter": []}
    if names is not None:
        source["indexRefName"] = "kibanaSavedObjectMeta.searchSourceJSON.index"
    return {"searchSourceJSON": json.dumps(source)}


def _search(search: SavedSearch, names: _Names) -> Object:
    attributes = {
        "title": f"ebpf-monitor: {search.title}", "description": search.doc, "columns": list(search.columns),
        "sort": [["@timestamp", "desc"]], "kibanaSavedObjectMeta": _source(search.query, names),
    }  # fmt: skip
    references = [_reference(names, "kibanaSavedObjectMeta.searchSourceJSON.index")]
    return _object("search", names.of(f"search {search.title}"), attributes, references)


# ---- Lens ------------------------------------------------------------------------------------------------------------


def _metric(metric: Metric) -> Object:
    column: Object = {
        "label": metric.label, "customLabel": True, "operationType": metric.operation, "isBucketed": False,
        "dataType": "date" if metric.field == "@timestamp" else "number", "scale": "ratio",
        "sourceField": metric.field or RECORDS, "params": {"emptyAsNull": metric.operation != "max"},
    }  # fmt: skip
    if metric.query:
        column["filter"] = {"query": metric.query, "language": "kuery"}
    return column


def _terms(field: str, size: int, order: str, direction: str) -> Object:
    return {
        "label": field, "dataType": _data_type(field), "operationType": "terms", "scale": "ordinal", "isBucketed": True,
        "sourceField": field,
        "params": {
            "size": size, "orderBy": {"type": "column", "columnId": order}, "orderDirection": direction,
            "otherBucket": False, "missingBucket": False, "parentFormat": {"id": "terms"},
        },
    }  # fmt: skip


def _data_type(field: str) -> str:
    return "ip" if field.endswith(".ip") else "number" if field.endswith((".port", ".pid")) else "string"


def _time() -> Object:
    return {
        "label": "@timestamp", "dataType": "date", "operationType": "date_histogram", "sourceField": "@timestamp",
        "isBucketed": True, "scale": "interval", "params": {"interval": "auto", "includeEmptyRows": True},
    }  # fmt: skip


def _filters(queries: Sequence[tuple[str, str]]) -> Object:
    entries = [{"label": label, "input": {"query": query, "language": "kuery"}} for label, query in queries]
    return {
        "label": "Filters", "dataType": "string", "operationType": "filters", "scale": "ordinal", "isBucketed": True,
        "params": {"filters": entries},
    }  # fmt: skip


def _columns(panel: Panel) -> dict[str, Object]:
    """The panel's columns in Lens's order: time or rows first, then what is counted."""
    metrics = {f"m{number}": _metric(metric) for number, metric in enumerate(panel.metrics)}
    buckets: dict[str, Object] = {}
    if panel.groups:
        buckets["groups"] = _filters(panel.groups)
    for number, field in enumerate(panel.rows):
        buckets[f"r{number}"] = _terms(field, panel.size, f"m{panel.by}", panel.direction)
    if panel.kind == "bars":
        buckets["time"] = _time()
    return buckets | metrics


def _visualization(panel: Panel, columns: dict[str, Object]) -> tuple[str, Object]:
    """(Lens's name of the kind, its state)."""
    base = {"layerId": LAYER, "layerType": "data"}
    metrics = [name for name in columns if name.startswith("m")]
    if panel.kind == "number":
        return "lnsMetric", base | {"metricAccessor": metrics[0]}
    if panel.kind == "table":
        return "lnsDatatable", base | {"columns": [{"columnId": name} for name in columns]}
    layer = base | {"seriesType": "bar_stacked", "xAccessor": "time", "accessors": metrics}
    if panel.rows:
        layer["splitAccessor"] = "r0"
    return "lnsXY", {"preferredSeriesType": "bar_stacked", "legend": {"isVisible": True, "position": "right"},
                     "valueLabels": "hide", "layers": [layer]}  # fmt: skip


def lens(panel: Panel, index: str) -> Object:
    """The attributes of one panel."""
    columns = _columns(panel)
    kind, visualization = _visualization(panel, columns)
    layers = {LAYER: {"columns": columns, "columnOrder": list(columns), "incompleteColumns": {}, "sampling": 1}}
    return {
        "title": panel.title, "description": panel.doc, "visualizationType": kind, "type": "lens",
        "references": [_reference(_Names(index), f"indexpattern-datasource-layer-{LAYER}")],
        "state": {
            "datasourceStates": {"formBased": {"layers": layers}}, "visualization": visualization,
            "query": {"query": panel.query, "language": "kuery"}, "filters": [], "internalReferences": [],
            "adHocDataViews": {},
        },
    }  # fmt: skip


# ---- dashboards ------------------------------------------------------------------------------------------------------


def _placed(panels: Sequence[Panel]) -> list[tuple[Panel, dict[str, int]]]:
    """Panels in rows, left to right."""
    found, x, y = [], 0, 0
    for panel in panels:
        if x + panel.width > _WIDE:
            x, y = 0, y + _HIGH
        found.append((panel, {"x": x, "y": y, "w": panel.width, "h": _HIGH}))
        x += panel.width
    return found


def _dashboard(dashboard: Dashboard, names: _Names) -> Object:
    panels, references = [], []
    placed = _placed([panel for panel in dashboard.panels if known(panel.needs)])
    for panel, place in placed:
        identity = names.of(f"panel {dashboard.title} {panel.title}")
        attributes = lens(panel, names.index)
        panels.append({
            "type": "lens", "version": PANEL_VERSION, "panelIndex": identity, "gridData": place | {"i": identity},
            "title": panel.title, "embeddableConfig": {"attributes": attributes, "enhancements": {}},
        })  # fmt: skip
        references += [one | {"name": f"{identity}:{one['name']}"} for one in attributes["references"]]
    bottom = max((place["y"] for _, place in placed), default=0) + _HIGH
    for search in dashboard.searches:
        identity = names.of(f"panel {dashboard.title} search {search.title}")
        name = f"panel_{identity}"
        panels.append({
            "type": "search", "version": PANEL_VERSION, "panelIndex": identity, "panelRefName": name,
            "gridData": {"x": 0, "y": bottom, "w": _WIDE, "h": _HIGH, "i": identity},
            "embeddableConfig": {"enhancements": {}},
        })  # fmt: skip
        target = names.of(f"search {search.title}")
        references.append({"type": "search", "id": target, "name": f"{identity}:{name}"})
        bottom += _HIGH
    attributes = {
        "title": f"ebpf-monitor: {dashboard.title}", "description": dashboard.doc, "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}), "timeRestore": False,
        "kibanaSavedObjectMeta": _source("", None),
    }  # fmt: skip
    return _object("dashboard", names.of(f"dashboard {dashboard.title}"), attributes, references)


def objects(index: str) -> list[Object]:
    """All saved objects for the indices `index`-*, what is referred to before what refers to it."""
    names = _Names(index)
    return [
        _data_view(names),
        *(_search(search, names) for search in dashboards.SEARCHES),
        *(_dashboard(dashboard, names) for dashboard in dashboards.DASHBOARDS),
    ]


def ndjson(documents: Sequence[Object]) -> str:
    """One object on each line, as Kibana exports and imports them."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents)
