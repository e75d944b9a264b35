"""search --elasticsearch: for every filter the same lines in the same order as from the log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor import provision, search
from monitor.cluster import Cluster
from monitor.indexed import IndexSearch
from monitor.logfiles import Problem
from monitor.search import Filter
from tests.conftest import ROOT
from tests.elasticsearch.server import PASSWORDS, Server
from tests.elasticsearch.story import goldens, numbered, store
from tests.elasticsearch.test_queries import incident
from tests.fakes import HOST, WALL_NS

INDEX = "searched"
OTHER_EPOCH = "0000000000000001"
MS = 1_000_000

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "a pid": {"pids": (702,)},
    "two pids": {"pids": (702, 704)},
    "a user's name": {"users": ("eve",)},
    "a user's number": {"users": ("0",)},
    "a program": {"names": ("curl",)},
    "programs": {"names": ("c*", "python?.1[01]")},
    "a path": {"paths": ("/etc/passwd",)},
    "paths": {"paths": ("/etc/*", "*.log")},
    "a class": {"paths": ("/etc/pass[w]?", "/etc/[!p]hadow", "/etc/passw[a-f]")},
    "signs": {"paths": ("/srv/a*\\*",)},
    "an escaped name": {"paths": ("*\\xe9*",)},
    "a value that is too long for the index": {"paths": ("/\\xff*",)},
    "a socket's path": {"paths": ("/run/app.sock",)},
    "an event": {"events": ("file_open",)},
    "a family": {"events": ("socket", "process_exit")},
    "failed": {"failed": True},
    "a container": {"containers": ("4f4f",)},
    "since": {"since_ns": WALL_NS + 5 * MS},
    "until": {"until_ns": WALL_NS + 5 * MS},
    "a moment": {"since_ns": WALL_NS + 5 * MS, "until_ns": WALL_NS + 5 * MS},
    "several": {"events": ("file",), "paths": ("/etc/*",), "users": ("root", "eve"), "failed": False},
    "nothing": {"pids": (999_999,)},
}


def lines() -> list[bytes]:
    """A log of two runs: in the second one the ids of the run are smaller."""
    long = goldens()[0] | {"file": {"path": "/" + "\\xff" * 5000, "name": "x"}}
    first = numbered([*incident(), *goldens(), long])
    second = numbered(incident(), len(first) + 1)
    for document in second:
        document["event"]["id"] = f"{HOST.agent_id}-{OTHER_EPOCH}-{document['event']['sequence']:012x}"
    return [orjson.dumps(one) for one in [*first, *second]]


@pytest.fixture(scope="module")
def both(elasticsearch: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cluster]]:
    """The same lines as a log directory and as indices, one of them in two shards, and somebody else's documents."""
    directory = tmp_path_factory.mktemp("log")
    (directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in lines()))
    with Cluster(elasticsearch.config("admin")) as cluster:
        list(provision.install(cluster, INDEX))
        cluster.need("PUT", f"/{INDEX}-2026.11.21", {"settings": {"number_of_shards": 2}})
        pairs = []
        for number, line in enumerate(lines()):
            document = orjson.loads(line)
            foreign = document | {
                "agent": document["agent"] | {"id": "ffffffff"}, "host": document["host"] | {"name": "web9"},
                "event": document["event"] | {"id": document["event"]["id"].replace(HOST.agent_id, "ffffffff")},
            }  # fmt: skip
            pairs += [(f"{INDEX}-2026.11.2{1 + number % 2}", one) for one in (document, foreign)]
        store(cluster, pairs)
        yield directory, cluster
        cluster.need("DELETE", f"/{INDEX}-2026.11.21,{INDEX}-2026.11.22")


def of_log(directory: Path, wanted: Filter) -> list[bytes]:
    problems: list[Problem] = []
    asking = search.Search(directory, wanted, problems.append)
    found = [one.raw for piece in asking.pieces(1 << 30) for one in asking.of(piece)]
    assert not problems
    return found


@pytest.mark.parametrize("name", FILTERS)
def test_the_index_answers_as_the_log_does(
    both: tuple[Path, Cluster], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, cluster = both
    monkeypatch.setattr("monitor.indexed._PAGE", 7)
    wanted = Filter(**FILTERS[name])
    expected = of_log(directory, wanted)
    assert bool(expected) == (name != "nothing")
    for host in (HOST.agent_id, "web1"):
        found = [one.raw for one in IndexSearch(cluster, f"{INDEX}-*", wanted, host).all()]
        assert found == expected, "the same bytes, in the same order"


def test_all_hosts_and_another_one(both: tuple[Path, Cluster]) -> None:
    _, cluster = both
    wanted = Filter(events=("process_exec",))
    every, ours, theirs = (
        [one.raw for one in IndexSearch(cluster, f"{INDEX}-*", wanted, host).all()] for host in (None, "web1", "web9")
    )
    assert sorted(every) == sorted(ours + theirs)
    assert len(ours) == len(theirs) > 0


def test_the_command_prints_the_same_in_both_forms(
    both: tuple[Path, Cluster], elasticsearch: Server, tmp_path: Path
) -> None:
    directory, _ = both
    es = elasticsearch.config("ship")
    settings = {
        "es_config": {"es_port": es.es_port, "ca_certs": str(es.ca_certs), "es_index": INDEX},
        "events_dir": str(directory),
    }
    config, admin = tmp_path / "config.json", tmp_path / "reader.env"
    config.write_text(json.dumps(settings))
    admin.write_text(f"ES_USER=admin\nES_PASSWORD={PASSWORDS['admin']}\n")
    admin.chmod(0o600)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "monitor", "search", "--config", str(config), *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    index = ("--elasticsearch", "--credentials", str(admin), "--host", "web1")
    for options in (("-o", "json"), ("--event", "file", "-x"), ("--path", "/etc/*")):
        log, found = run(*options), run(*options, *index)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout == log.stdout != ""
    refused = run("--elasticsearch", "--host", "web1")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ebpf-monitor: nobody is refused (401)")


def test_a_shard_that_does_not_answer_is_an_error_and_no_shorter_answer() -> None:
    from monitor.cluster import ClusterError

    class Partial(Cluster):
        def __init__(self) -> None: ...

        def ask(self, *_: Any, **__: Any) -> tuple[int, Any]:
            return 200, {"timed_out": False, "_shards": {"total": 2, "failed": 1}, "hits": {"hits": []}}

    with pytest.raises(ClusterError, match="not every shard"):
        list(IndexSearch(Partial(), "x-*", Filter()).all())
