"""Which messages a level lets through."""

from __future__ import annotations

from typing import get_args

import pytest

from monitor.config_keys import LogLevel
from monitor.voice import Voice


@pytest.mark.parametrize("level", get_args(LogLevel))
def test_what_is_less_important_than_the_level_is_not_said(level: LogLevel) -> None:
    said: list[str] = []
    voice = Voice(said.append, level)
    for one in get_args(LogLevel):
        getattr(voice, one)(one)
    assert said == list(get_args(LogLevel))[get_args(LogLevel).index(level) :]


def test_the_level_can_change_at_any_time() -> None:
    said: list[str] = []
    voice = Voice(said.append)
    voice.debug("1")
    voice.level = "debug"
    voice.debug("2")
    voice.level = "error"
    voice.warning("3")
    assert said == ["2"]
