"""KQL as Kibana turns it into a query of Elasticsearch: what the tests put to a real server in Kibana's place.

The part of the language that our queries use: fields with values, lists, wildcards, quoted texts, ranges, and, or, not.
Form of the results: `toElasticsearchQuery` in Kibana's package kbn-es-query (a keyword field: term and wildcard queries).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Query = dict[str, Any]
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<sign><=|>=|[():<>])|(?P<word>(?:[^\s()<>:"\\*]|\\.|\*)+))""", re.VERBOSE
)
_RANGE = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class KqlError(ValueError):
    """Not KQL, or a part of it that is not supported here."""


class _Parser:
    def __init__(self, text: str, keyword: Callable[[str], bool]) -> None:
        self.keyword = keyword
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                raise KqlError(f"{text!r}: what is this at {at}: {text[at : at + 20]!r}")
            self.tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            at = found.end()
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, kind: str, text: str) -> bool:
        found, value = self.peek()
        if found == kind and value.lower() == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept("sign", text):
            raise KqlError(f"{text!r} expected, not {self.peek()[1]!r}")

    def either(self, part: Callable[[], Query]) -> Query:
        """`part`s with and, these with or."""
        return self._joined("or", lambda: self._joined("and", lambda: self._negated(part)))

    def _joined(self, word: str, part: Callable[[], Query]) -> Query:
        found = [part()]
        while self.accept("word", word):
            found.append(part())
        if len(found) == 1:
            return found[0]
        return {"bool": {"filter": found}} if word == "and" else {"bool": {"should": found, "minimum_should_match": 1}}

    def _negated(self, part: Callable[[], Query]) -> Query:
        return {"bool": {"must_not": self._negated(part)}} if self.accept("word", "not") else part()

    def clause(self) -> Query:
        if self.accept("sign", "("):
            inner = self.either(self.clause)
            self.expect(")")
            return inner
        kind, field = self.take()
        if kind != "word":
            raise KqlError(f"a field expected, not {field!r}")
        sign = self.take()[1]
        if sign in _RANGE:
            return {"range": {field: {_RANGE[sign]: self.take()[1]}}}
        if sign != ":":
            raise KqlError(f"{field}: ':' expected, not {sign!r}")
        return self.values(field)

    def values(self, field: str) -> Query:
        if self.accept("sign", "("):
            found = self.either(lambda: self.values(field))
            self.expect(")")
            return found
        kind, text = self.take()
        if kind not in ("word", "quoted"):
            raise KqlError(f"{field}: a value expected, not {text!r}")
        return self.value(field, kind == "quoted", text)

    def value(self, field: str, quoted: bool, text: str) -> Query:
        plain = re.sub(r"\\(.)", r"\1", text[1:-1] if quoted else text)
        if quoted or "*" not in re.sub(r"\\.", "", text):
            if self.keyword(field):
                return {"term": {field: {"value": plain}}}
            return {"match_phrase" if quoted else "match": {field: plain}}
        if text == "*":
            return {"exists": {"field": field}}
        pattern = re.sub(r"\\?(.)", lambda one: one[0] if one[0] == "*" else re.sub(r"([\\?*])", r"\\\1", one[1]), text)
        if self.keyword(field):
            return {"wildcard": {field: {"value": pattern}}}
        return {"query_string": {"fields": [field], "query": re.sub(r"([/:+\-!(){}\[\]^~])", r"\\\1", pattern)}}


def query(text: str, keyword: Callable[[str], bool] = lambda _: True) -> Query:
    """The query for a KQL text; "" finds all. `keyword` tells which fields have just that type. Raises KqlError."""
    if not text.strip():
        return {"match_all": {}}
    parser = _Parser(text, keyword)
    found = parser.either(parser.clause)
    if parser.peek()[0] != "end":
        raise KqlError(f"{text!r}: {parser.peek()[1]!r} is left over")
    return found


def fields(text: str) -> set[str]:
    """The fields that a KQL text names."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                walk(one)
        elif isinstance(node, dict):
            for key, inner in node.items():
                if key in ("term", "match", "match_phrase", "wildcard", "range"):
                    found.update(inner)
                elif key == "exists":
                    found.add(inner["field"])
                elif key == "query_string":
                    found.update(inner["fields"])
                else:
                    walk(inner)

    walk(query(text))
    return found
