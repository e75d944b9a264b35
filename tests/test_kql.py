"""The translation of KQL that the tests use: each form of the language gives the query that Kibana makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kql import KqlError, fields, query


def term(field: str, value: str) -> dict[str, Any]:
    return {"term": {field: {"value": value}}}


# The expected queries are those of Kibana's own package (kbn-es-query), asked once by hand with fields of type keyword.
FORMS: dict[str, dict[str, Any]] = {
    "": {"match_all": {}},
    "a.b: c": term("a.b", "c"),
    'a: "b c"': term("a", "b c"),
    r'a: "b\"c"': term("a", 'b"c'),
    "a: *": {"exists": {"field": "a"}},
    "a: /etc/*": {"wildcard": {"a": {"value": "/etc/*"}}},
    r"a: b\*c": term("a", "b*c"),
    r"a: b\*c*": {"wildcard": {"a": {"value": r"b\*c*"}}},
    "a: b?c*": {"wildcard": {"a": {"value": r"b\?c*"}}},
    r"a: b\:c": term("a", "b:c"),
    "a >= 5": {"range": {"a": {"gte": "5"}}},
    "a<5": {"range": {"a": {"lt": "5"}}},
    "not a: b": {"bool": {"must_not": term("a", "b")}},
    "a: b and c: d": {"bool": {"filter": [term("a", "b"), term("c", "d")]}},
    "a: b OR c: d": {"bool": {"should": [term("a", "b"), term("c", "d")], "minimum_should_match": 1}},
    "a: (b or not c)": {
        "bool": {"should": [term("a", "b"), {"bool": {"must_not": term("a", "c")}}], "minimum_should_match": 1}
    },
    "a: b and (c: d or e: f)": {
        "bool": {
            "filter": [
                term("a", "b"),
                {"bool": {"should": [term("c", "d"), term("e", "f")], "minimum_should_match": 1}},
            ]
        }
    },
}


@pytest.mark.parametrize("text", FORMS)
def test_form(text: str) -> None:
    assert query(text) == FORMS[text]


def test_a_field_that_is_no_keyword_is_matched_and_its_wildcards_are_escaped() -> None:
    assert query("ip: 192.0.2.1", lambda _: False) == {"match": {"ip": "192.0.2.1"}}
    assert query('ip: "192.0.2.0/24"', lambda _: False) == {"match_phrase": {"ip": "192.0.2.0/24"}}
    assert query("p: /etc/*", lambda _: False) == {"query_string": {"fields": ["p"], "query": r"\/etc\/*"}}


@pytest.mark.parametrize("text", ["a:", "a: (b", "a b", "a: b)", ": b", "a: b or", '"a', "a: {b: c}"])
def test_what_is_not_kql_is_refused(text: str) -> None:
    with pytest.raises(KqlError):
        query(text)


def test_fields_are_those_named_anywhere() -> None:
    assert fields("a: b and not (c: d* or e > 1) and f: *") == {"a", "c", "e", "f"}
