"""The documents and the mapping agree with the published Elastic Common Schema: types, arrays, words and pairs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from monitor import events, fields, generate, mapping
from tests import ecs
from tests.fakes import leaves
from tests.test_mapping import mapped

OURS = ("ebpf.",)
DEFEND = {"file.Ext.original.path"}
"""Not ECS, but what Elastic's own sensor (Defend) calls the same fact, so that its views work."""
ECS = ecs.types()
SECTIONS = {name.split(".")[0] for name in ecs.SECTIONS}
GOLDENS = sorted(generate.GOLDENS.glob("*.json"))
each_golden = pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)


def test_the_extract_is_whole_and_of_the_version_that_documents_name() -> None:
    document = orjson.loads(GOLDENS[0].read_bytes())
    assert ecs.FACTS["version"] == document["ecs"]["version"]
    assert len(ECS) > 400
    assert {"event.category", "event.type", "event.kind", "event.outcome"} <= set(ecs.FACTS["words"])


def test_every_field_outside_of_our_own_section_is_one_of_ecs() -> None:
    foreign = {path for path in fields.all_paths() if not path.startswith(OURS)} - DEFEND - set(ECS)
    assert not foreign, "ECS has no such field: it belongs below ebpf.*"
    assert {path.split(".")[0] for path in fields.all_paths()} <= SECTIONS | {"ebpf"}


@pytest.mark.parametrize("features", [mapping.FULL, mapping.MINIMAL], ids=["full", "minimal"])
def test_every_field_of_ecs_has_a_type_of_its_family(features: mapping.Features) -> None:
    found = mapped(features)
    differing = {
        path: (found[path]["type"], ECS[path])
        for path in set(found) & set(ECS)
        if ecs.family(found[path]["type"]) != ecs.family(ECS[path])
    }
    assert not differing


@pytest.mark.parametrize("kind", events.EVENTS, ids=lambda kind: kind.name)
def test_category_and_type_are_a_pair_that_ecs_expects(kind: events.EventType) -> None:
    assert {*kind.types, *kind.failure_types} <= set(ecs.FACTS["pairs"][kind.category])


@each_golden
def test_documents_use_arrays_and_words_as_ecs_says(path: Any) -> None:
    document = orjson.loads(path.read_bytes())
    for name, value in leaves(document):
        if name in ECS:
            assert isinstance(value, list) == (name in ecs.FACTS["arrays"]), f"{name}: {value!r}"
        words = ecs.FACTS["words"].get(name)
        if words:
            assert {*(value if isinstance(value, list) else [value])} <= set(words), name
    category, types = document["event"]["category"], document["event"]["type"]
    assert all(set(types) <= set(ecs.FACTS["pairs"][one]) for one in category)
