"""The README's table of kernels and docs/kernels.md say what the last boots left, measured against today's catalogue."""

from __future__ import annotations

import copy

import pytest

from monitor import events
from tests.kernels import packages, page

AGAIN = "stale: run `make gen`, or `make test-kernels` to try new events"


def test_page_and_readme_are_what_the_boots_left() -> None:
    found = page.results()
    assert page.PAGE.read_text(encoding="utf-8") == page.page(found), AGAIN
    text = page.README.read_text(encoding="utf-8")
    assert page.readme(text, found) == text, AGAIN


def test_an_event_that_came_later_is_not_counted_as_given() -> None:
    found = page.results()
    before, old = page.table(found), copy.deepcopy(found)
    for one in old.values():
        one["catalogue"].remove("file_open")
    assert page.table(old) != before
    assert "not tried: `file_open`" in page.page(old)


def test_the_boots_know_today_s_kernels_events_and_features() -> None:
    found = page.results()
    assert list(found) == [line for line in packages.SUITES if line in found]
    assert found.keys() >= {"5.10", "6.1", "6.12"}
    for line, one in found.items():
        assert one["starts"] == (line not in packages.REFUSED)
        assert set(one["start"].get("events", ())) <= set(one["catalogue"])
        assert set(page.absent(one) if one["starts"] else ()) <= events.EVENT.keys()


def test_a_readme_without_a_place_for_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"README\.md"):
        page.readme("# nothing", page.results())
