"""Own rules in the configuration: what they may say, and errors that name file, line, member and the nearest valid one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor import config, config_exclusions
from monitor.config_exclusions import Exclusion
from monitor.config_file import ConfigError

WHOLE = {
    "name": "backup", "executable": "/usr/bin/restic", "directory": "/srv//data/", "filesystem": "ext4", "device": "8:1",
    "cgroup": "/sys/fs/cgroup/system.slice", "uid": 34, "events": ["file_read", "file_open"], "direction": "read",
    "sensitive": True,
}  # fmt: skip


def load(*rules: object) -> tuple[Exclusion, ...]:
    return config.loads(json.dumps({"exclusions": list(rules)}, indent=1).encode(), "x").exclusions


def test_every_member_is_taken_and_comes_back_as_it_was_written() -> None:
    (found,) = load(WHOLE)
    assert found == Exclusion(
        "backup", Path("/usr/bin/restic"), Path("/srv/data"), "ext4", 8 << 20 | 1, Path("/sys/fs/cgroup/system.slice"), 34,
        ("file_open", "file_read"), "read", True,
    )  # fmt: skip
    assert load(config_exclusions.plain(found)) == (found,)
    assert load({"name": "root", "uid": 0}) == (Exclusion("root", uid=0),)
    assert config_exclusions.plain(Exclusion("root", uid=0)) == {"name": "root", "uid": 0}
    assert set(WHOLE) == set(config_exclusions._MEMBERS)


@pytest.mark.parametrize(
    ("rule", "key", "message"),
    [
        (1, "exclusions[0]", "expected an object {...}, found an integer"),
        ({"uid": 1}, "exclusions[0]", "a rule needs a name"),
        ({"name": "a"}, "exclusions[0]", "it would leave out everything: select by executable, "),
        ({"name": "a", "events": ["file_read"]}, "exclusions[0]", "it would leave out everything"),
        ({"name": "a", "excutable": "/x"}, "exclusions[0]", "unknown member of a rule; did you mean executable?"),
        ({"name": "a", "comm": "x"}, "exclusions[0]", "unknown member of a rule"),
        ({"name": "A", "uid": 1}, "exclusions[0].name", "the name of a rule has 1 to 32 small letters"),
        ({"name": "a", "uid": -1}, "exclusions[0].uid", "-1 is out of range: 0 to 4294967294"),
        ({"name": "a", "uid": "0"}, "exclusions[0].uid", "expected an integer, found a string"),
        ({"name": "a", "executable": "cat"}, "exclusions[0].executable", "expected an absolute path"),
        ({"name": "a", "device": "sda"}, "exclusions[0].device", "expected the numbers of a device, as in 8:1"),
        ({"name": "a", "device": "4096:0"}, "exclusions[0].device", "expected the numbers of a device, as in 8:1"),
        ({"name": "a", "filesystem": "ext3"}, "exclusions[0].filesystem", "did you mean ext4?"),
        ({"name": "a", "uid": 1, "events": []}, "exclusions[0].events", "no event; name some of file_open"),
        ({"name": "a", "uid": 1, "events": ["process_exec"]}, "exclusions[0].events", "is not one of file_open"),
        ({"name": "a", "uid": 1, "direction": "in"}, "exclusions[0].direction", '"in" is not one of read, write'),
        ({"name": "a", "uid": 1, "sensitive": 1}, "exclusions[0].sensitive", "expected true or false"),
    ],
)
def test_an_error_says_where_and_what(rule: object, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(rule)
    assert caught.value.key == key
    assert message in caught.value.message
    assert caught.value.line is not None


def test_names_are_taken_once_and_there_are_at_most_8() -> None:
    with pytest.raises(ConfigError, match=r"exclusions\[1\]: two rules have the name a"):
        load({"name": "a", "uid": 1}, {"name": "a", "uid": 2})
    with pytest.raises(ConfigError, match="9 entries; allowed: 0 to 8"):
        load(*({"name": f"r{n}", "uid": n} for n in range(9)))


def test_a_change_of_a_rule_is_a_live_change_of_the_digest() -> None:
    before, after = (config.loads(json.dumps({"exclusions": rules}).encode(), "x") for rules in ([], [WHOLE]))
    (key,) = config.changed(before, after)
    assert (key.name, key.live) == ("exclusions", True)
    assert config.digest(before) != config.digest(after)
