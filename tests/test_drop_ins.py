"""Several configuration files make one: what a later file changes, where each value came from, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor import config
from monitor.config import ConfigError, Sources


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "config.json").write_text('{\n "profile": "full",\n "tags": ["a"],\n "labels": {"site": "x", "role": "web"},\n'
                                          ' "es_config": {"es_host": "es1", "es_port": 9201}\n}')  # fmt: skip
    (tmp_path / "conf.d").mkdir(mode=0o755)
    return config.Sources(tmp_path / "config.json", tmp_path / "conf.d")


def add(sources: Sources, name: str, text: str, mode: int = 0o644) -> Path:
    path = sources.drop_ins / name
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(sources: Sources) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.read(sources)
    return caught.value


def test_later_files_win_sections_and_labels_are_merged_lists_are_replaced(sources: Sources) -> None:
    add(sources, "20-late.json", '{"tags": ["b"], "labels": {"role": "db"}, "es_config": {"es_port": 9202}}')
    add(sources, "10-early.json", '{"tags": ["c"], "profile": "minimal", "labels": {"rack": "7"}}')
    found = config.read(sources).config
    assert (found.profile, found.tags) == ("minimal", ("b",))
    assert found.labels == (("rack", "7"), ("role", "db"), ("site", "x"))
    assert (found.es_config.es_host, found.es_config.es_port) == (("es1",), 9202)


def test_each_value_says_where_it_came_from(sources: Sources) -> None:
    path = add(sources, "10-port.json", '{\n\n "es_config": {\n "es_port": 9202}}')
    found = config.read(sources)
    assert str(found.places["es_config.es_port"]) == f"{path}:4"
    assert str(found.places["profile"]) == f"{sources.main}:2"
    assert found.files == (sources.main, path)
    site, tags = add(sources, "20-site.json", '{"labels": {\n"role": "db"}}'), add(sources, "30-tags.json", '{"tags": []}')
    found = config.read(sources)
    assert {name: str(place) for name, place in found.places.items()} == {
        "profile": f"{sources.main}:2", "labels.site": f"{sources.main}:4", "es_config.es_host": f"{sources.main}:5",
        "es_config.es_port": f"{path}:4", "labels.role": f"{site}:2", "tags": f"{tags}:1",
    }  # fmt: skip


def test_only_visible_json_files_are_read(sources: Sources) -> None:
    for name in (".10-x.json.swp", ".hidden.json", "10-x.json~", "README", "10-x.json.dpkg-new"):
        add(sources, name, "rubbish")
    assert config.read(sources).files == (sources.main,)


def test_drop_ins_alone_are_a_configuration(sources: Sources) -> None:
    add(sources, "x.json", '{"profile": "trace"}')
    assert config.read(Sources(None, sources.drop_ins)).config.profile == "trace"


def test_a_drop_in_is_as_strict_as_the_file(sources: Sources) -> None:
    path = add(sources, "x.json", '{\n"profil": "full"}')
    error = refused(sources)
    assert (error.file, error.line, error.key) == (str(path), 2, "profil")
    assert "did you mean profile?" in error.message


def test_a_contradiction_between_files_names_the_file_that_made_it(sources: Sources) -> None:
    add(sources, "1.json", '{"es_config": {"es_password": "hunter2-Pa55"}}', 0o600)
    path = add(sources, "2.json", '{"es_config": {\n"api_key_file": "/key"}}')
    error = refused(sources)
    assert (error.file, error.line, error.key) == (str(path), 2, "es_config.api_key_file")


def test_a_secret_counts_by_the_file_that_it_stands_in(sources: Sources) -> None:
    path = add(sources, "1.json", '{"es_config": {"es_password": "hunter2-Pa55"}}', 0o644)
    error = refused(sources)
    assert error.file == str(path)
    assert "hunter2" not in str(error)
    path.chmod(0o640)
    assert config.read(sources).config.es_config.es_password == "hunter2-Pa55"


def test_a_drop_in_or_its_directory_that_others_can_write_is_refused(sources: Sources) -> None:
    path = add(sources, "1.json", "{}", 0o666)
    assert "others can write to it" in str(refused(sources))
    path.chmod(0o644)
    sources.drop_ins.chmod(0o777)
    error = refused(sources)
    assert error.file == str(sources.drop_ins)
    assert f"chmod go-w {sources.drop_ins}" in error.message


def test_labels_of_all_files_together_are_bounded(sources: Sources) -> None:
    add(sources, "1.json", '{"labels": {' + ", ".join(f'"l{n}": ""' for n in range(15)) + "}}")
    assert "17 entries in all files together" in str(refused(sources))


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conf.d").write_text("")
    assert "is not a directory" in str(refused(Sources(None, tmp_path / "conf.d")))


def test_drop_ins_stand_beside_an_explicit_file_and_else_in_etc(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.locate(sources.main) == sources
    monkeypatch.setattr(config, "DEFAULT_PATHS", (sources.main,))
    assert config.locate(None) == Sources(sources.main, Path("/etc/ebpf-monitor/conf.d"))
    assert config.load(Path(os.fspath(sources.main or ""))).profile == "full"
