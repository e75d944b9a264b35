"""setup-elasticsearch against a real server; against a fake where that one lacks the part (ILM, keys, Kibana)."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor import config_file, kibana, mapping, provision, rules
from monitor.cluster import Cluster, ClusterError, with_credentials
from monitor.config_keys import EsConfig
from monitor.model import SCHEMA
from tests.conftest import ROOT
from tests.elasticsearch.server import INDEX, PASSWORDS, Server
from tests.elasticsearch.story import goldens, numbered


@pytest.fixture
def cluster(elasticsearch: Server) -> Iterator[Cluster]:
    """The real server as its administrator sees it, emptied afterwards."""
    with Cluster(elasticsearch.config("admin")) as found:
        yield found
        for name in [one["name"] for one in found.need("GET", "/_resolve/index/setup*,logs-*,ebpf-events*")["indices"]]:
            found.need("DELETE", f"/{name}")
        for one in found.need("GET", "/_index_template")["index_templates"]:
            if one["name"].startswith(("setup", "logs", "other", "ebpf")):
                found.need("DELETE", f"/_index_template/{one['name']}")


def states(steps: Iterator[provision.Step]) -> dict[str, str]:
    return {step.what: step.state for step in steps}


# ---- the real server ---------------------------------------------------------------------------------------------------


def test_the_server_is_asked_what_it_has(cluster: Cluster) -> None:
    assert provision.features(cluster) == mapping.Features(wildcard=False, logsdb=True, ilm=False)


def test_setup_can_be_done_again_and_says_what_it_found(cluster: Cluster) -> None:
    first, second = (states(provision.install(cluster, "setup")) for _ in range(2))
    assert first == {"server": "asked", "retention": "yours", "index template": "created"}
    assert second == first | {"index template": "unchanged"}
    found = cluster.need("GET", "/_index_template/setup")["index_templates"][0]["index_template"]
    assert found["template"]["mappings"]["_meta"] == mapping.meta()
    assert found["template"]["settings"]["index"]["mode"] == "logsdb"


def test_an_older_template_is_brought_up_to_date(cluster: Cluster) -> None:
    old = mapping.template("setup", mapping.MINIMAL)
    del old["template"]["mappings"]["properties"]["ebpf"]["properties"]["schema"]
    cluster.need("PUT", "/_index_template/setup", old)
    cluster.need("PUT", "/setup-2026.11.21")
    found = states(provision.install(cluster, "setup"))
    assert (found["index template"], found["indices"]) == ("updated", "up to date")
    there = cluster.need("GET", "/setup-2026.11.21/_mapping")["setup-2026.11.21"]["mappings"]["properties"]
    assert there["ebpf"]["properties"]["schema"] == {"type": "long"}, "an index that was there has the new field"


def test_a_flat_index_with_the_name_of_the_alias_stops_everything_with_the_way_out(cluster: Cluster) -> None:
    cluster.need("PUT", "/setup", {"mappings": {"properties": {"pid": {"type": "long"}}}})
    with pytest.raises(ClusterError, match=r"index called setup.*_clone.*es_config\.es_index"):
        list(provision.install(cluster, "setup"))
    assert cluster.ask("GET", "/_index_template/setup")[0] == 404, "nothing was changed"


def test_an_alias_over_foreign_indices_is_found(cluster: Cluster) -> None:
    cluster.need("PUT", "/setup_old", {"aliases": {"setup": {}}})
    with pytest.raises(ClusterError, match="alias called setup for setup_old"):
        list(provision.install(cluster, "setup"))


def test_old_indices_of_the_pattern_are_told(cluster: Cluster) -> None:
    cluster.need("PUT", "/setup-2026.01.01", {"mappings": {"properties": {"pid": {"type": "long"}}}})
    newer = {"ebpf_monitor": {"schema": SCHEMA + 1}}
    cluster.need("PUT", "/setup-2026.01.02", {"mappings": {"_meta": newer}})
    told = [step.text for step in provision.install(cluster, "setup") if step.what == "old index"]
    assert len(told) == 2
    assert "flat documents of the original tool" in told[0]
    assert f"version {SCHEMA + 1}" in told[1]


def test_a_foreign_template_of_our_name_stays(cluster: Cluster) -> None:
    cluster.need("PUT", "/_index_template/setup", {"index_patterns": ["x-*"], "template": {}})
    with pytest.raises(ClusterError, match="not ours"):
        list(provision.install(cluster, "setup"))
    assert cluster.need("GET", "/_index_template/setup")["index_templates"][0]["index_template"]["index_patterns"] == [
        "x-*"
    ]


def test_a_template_that_wins_over_ours_is_named(cluster: Cluster) -> None:
    cluster.need("PUT", "/_index_template/other", {"index_patterns": ["setup-*"], "priority": 900, "template": {}})
    with pytest.raises(ClusterError, match=r"another index template wins.*other.*500"):
        list(provision.install(cluster, "setup"))


def test_an_index_of_elastics_views_gets_our_mapping_and_no_data_stream(cluster: Cluster) -> None:
    index = "logs-ebpf.events"
    builtin = {"index_patterns": ["logs-*-*"], "priority": 100, "template": {"mappings": {"dynamic": True}}}
    cluster.need("PUT", "/_index_template/logs", builtin)
    list(provision.install(cluster, index))
    document = numbered(goldens())[0]
    cluster.need("PUT", f"/{index}-2026.11.22/_create/{document['event']['id']}?refresh=true", document)
    made = cluster.need("GET", f"/{index}-2026.11.22")[f"{index}-2026.11.22"]
    assert made["mappings"]["_meta"] == mapping.meta()
    assert "data_stream" not in made
    for pattern in ("logs-*", index):
        assert cluster.need("GET", f"/{pattern}/_count")["count"] == 1


def test_a_user_without_rights_is_told_which_and_nothing_else(elasticsearch: Server) -> None:
    with (
        Cluster(elasticsearch.config("ship")) as cluster,
        pytest.raises(ClusterError, match=r"ship may not do this \(403\)"),
    ):
        list(provision.install(cluster, INDEX))
    with (
        Cluster(elasticsearch.config("admin", es_password="wrong")) as cluster,
        pytest.raises(ClusterError, match="refused"),
    ):
        list(provision.install(cluster, INDEX))


def test_the_command_says_each_step_and_ends_with_zero(elasticsearch: Server, cluster: Cluster, tmp_path: Path) -> None:
    es = elasticsearch.config("ship")
    settings = {
        "output_dir": str(tmp_path / "out"),
        "es_config": {"es_port": es.es_port, "ca_certs": str(es.ca_certs), "es_index": "setup"},
    }
    config, admin = (
        tmp_path / "config.json",
        environment(tmp_path, f"ES_USER=admin\nES_PASSWORD={PASSWORDS['admin']}\n"),
    )
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "monitor", "setup-elasticsearch", "--config", str(config)]
    done = subprocess.run([*command, "--credentials", str(admin)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert words == ["Kibana files", "server", "retention", "index template"]
    assert (tmp_path / "out" / "kibana" / "kibana-objects.ndjson").is_file()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("ebpf-monitor: nobody is refused (401)")
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "--rules"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 64


# ---- credentials -------------------------------------------------------------------------------------------------------


def environment(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "admin.env"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_admin_credentials_come_from_a_file_and_replace_the_configured_ones(tmp_path: Path) -> None:
    es = EsConfig(es_user="ship", es_password="a", es_index="kept")
    found = with_credentials(es, environment(tmp_path, "# an administrator\nES_USER=elastic\nES_PASSWORD='s p=1'\n"))
    assert (found.es_user, found.es_password, found.es_index) == ("elastic", "s p=1", "kept")
    found = with_credentials(es, environment(tmp_path, "ES_API_KEY=abc=="))
    assert (found.es_user, found.es_password, found.api_key) == ("", "", "abc==")
    assert with_credentials(es, None) is es


@pytest.mark.parametrize(
    ("text", "mode", "match"),
    [
        ("ES_USER=a\nES_PASSWORD=b\n", 0o644, "chmod o-rw"),
        ("ES_USER=a\nPASSWORD=secret1\n", 0o600, r"admin\.env:2: NAME=VALUE"),
        ("ES_USER=a\n", 0o600, "either ES_API_KEY"),
        ("ES_USER=a\nES_PASSWORD=b\nES_API_KEY=c\n", 0o600, "either ES_API_KEY"),
        ("ES_PASSWORD=b\n", 0o600, "either ES_API_KEY"),
    ],
)
def test_unfit_credentials_files_are_refused_without_a_secret(tmp_path: Path, text: str, mode: int, match: str) -> None:
    with pytest.raises(config_file.ConfigError, match=match) as caught:
        with_credentials(EsConfig(), environment(tmp_path, text, mode))
    assert "secret1" not in str(caught.value)


# ---- fakes for what the test server lacks --------------------------------------------------------------------------------

Answer = Callable[[str, str, bytes], tuple[int, Any]]


class Fake:
    """A server on loopback that answers as told and remembers what it was asked: (method, path, headers, body)."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.asked.append((self.command, self.path, headers, body))
                status, document = answer(self.command, self.path, body)
                data = orjson.dumps(document)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def config(self) -> EsConfig:
        return EsConfig(
            es_host=("127.0.0.1",), es_port=self.server.server_port, secure=False, es_user="elastic", es_password="x1"
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Managed:
    """A cluster that has everything: ILM, the wildcard type, keys."""

    def __init__(self) -> None:
        self.policies: dict[str, Any] = {}
        self.templates: dict[str, Any] = {}
        self.roles: dict[str, Any] = {}
        self.streams: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        sent = orjson.loads(body) if body else None
        path, name = path.partition("?")[0], path.partition("?")[0].rpartition("/")[2]
        if path.startswith("/_resolve/index/"):
            return 200, {"indices": [], "aliases": [], "data_streams": self.streams}
        if path == "/_index_template/_simulate":
            return 200, {"template": {}}
        if path.startswith("/_index_template/_simulate_index/"):
            return 200, {"template": next(iter(self.templates.values()))["template"], "overlapping": []}
        store = {"_ilm/policy": self.policies, "_index_template": self.templates, "_security/role": self.roles}
        for prefix, there in store.items():
            if path.startswith(f"/{prefix}/") and method == "PUT":
                there[name] = sent
                return 200, {"acknowledged": True}
            if path.startswith(f"/{prefix}/"):
                if name not in there:
                    return 404, {"error": "missing"}
                return 200, {name: there[name], "index_templates": [{"name": name, "index_template": there[name]}]}
        if path == "/_security/api_key":
            return 200, {"id": "i", "api_key": "k", "encoded": "aTpr"}
        return 200, {}


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Fake]]:
    made: list[Fake] = []

    def start(answer: Answer) -> Fake:
        made.append(Fake(answer))
        return made[-1]

    yield start
    for one in made:
        one.close()


Serve = Callable[[Answer], Fake]


def test_with_ilm_a_policy_deletes_and_a_changed_one_stays_unless_asked(serve: Serve) -> None:
    managed = Managed()
    with Cluster(serve(managed).config) as cluster:
        assert states(provision.install(cluster, "x"))["retention"] == "created"
        assert managed.templates["x"]["template"]["settings"]["index"]["lifecycle"] == {"name": "x"}
        assert managed.templates["x"]["template"]["mappings"] == mapping.mapping(mapping.FULL)
        managed.policies["x"]["policy"]["phases"]["delete"]["min_age"] = "90d"
        assert states(provision.install(cluster, "x"))["retention"] == "unchanged"
        assert managed.policies["x"]["policy"]["phases"]["delete"]["min_age"] == "90d", "an operator's choice"
        assert states(provision.install(cluster, "x", 7))["retention"] == "updated"
        assert managed.policies["x"] == mapping.policy(7)


def test_a_data_stream_in_the_way_is_found(serve: Serve) -> None:
    managed = Managed()
    managed.streams = [{"name": "x-default"}]
    with Cluster(serve(managed).config) as cluster, pytest.raises(ClusterError, match="data stream called x-default"):
        list(provision.install(cluster, "x"))
    assert not managed.templates


def test_the_shippers_key_has_its_role_and_stands_in_a_file_of_its_own(serve: Serve, tmp_path: Path) -> None:
    managed, path = Managed(), tmp_path / "key"
    fake = serve(managed)
    with Cluster(fake.config) as cluster:
        assert provision.shipper_key(cluster, "x", path).state == "created"
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("aTpr\n", 0o600)
        assert managed.roles[provision.ROLE]["indices"] == mapping.role("x")["indices"]
        (made,) = [orjson.loads(body) for _, name, _, body in fake.asked if name == "/_security/api_key"]
        assert made["role_descriptors"] == {provision.ROLE: mapping.role("x")}
        asked = len(fake.asked)
        assert provision.shipper_key(cluster, "x", path).state == "unchanged"
        assert len(fake.asked) == asked, "no second key"


def test_a_key_that_is_refused_leaves_no_file(serve: Serve, tmp_path: Path) -> None:
    fake = serve(lambda _m, path, _b: (400, {"error": {"reason": "keys are off"}}) if "api_key" in path else (200, {}))
    with Cluster(fake.config) as cluster, pytest.raises(ClusterError, match="keys are off"):
        provision.shipper_key(cluster, "x", tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


# ---- Kibana --------------------------------------------------------------------------------------------------------------


class Kibana:
    """Kibana's import of saved objects and of rules, as its API reference describes both."""

    def __init__(self, on: tuple[str, ...] = ()) -> None:
        self.imported: list[dict[str, Any]] = []
        self.rules: list[dict[str, Any]] = []
        self.on = on

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "GET" and path.startswith("/s/sec/api/detection_engine/rules/_find?"):
            return 200, {"data": [{"rule_id": one, "enabled": True} for one in self.on]}
        if method != "POST" or not path.startswith("/s/sec/api/"):
            return 404, {"message": "Not Found"}
        text = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0].decode()
        found = [json.loads(line) for line in text.splitlines() if line]
        if path == "/s/sec/api/saved_objects/_import?overwrite=true":
            self.imported = found
            return 200, {"success": True, "successCount": len(found)}
        if path == "/s/sec/api/detection_engine/rules/_import?overwrite=true":
            self.rules = found
            return 200, {"success": True, "success_count": len(found), "errors": []}
        return 404, {"message": "Not Found"}


def test_objects_and_rules_go_through_kibanas_import(serve: Serve) -> None:
    first = rules.documents("x")[0]["rule_id"]
    there = Kibana(on=(first,))
    fake = serve(there)
    with provision.kibana_at(f"{fake.url}/s/sec/", fake.config) as cluster:
        assert provision.import_objects(cluster, "x").state == "imported"
        assert provision.import_rules(cluster, "x").state == "imported"
    assert there.imported == kibana.objects("x")
    assert [one["rule_id"] for one in there.rules] == [one["rule_id"] for one in rules.documents("x")]
    assert {one["rule_id"] for one in there.rules if one["enabled"]} == {first}, "a rule that somebody enabled stays so"
    for method, _path, headers, body in fake.asked:
        assert headers["kbn-xsrf"]
        assert headers["authorization"].startswith("Basic ")
        assert headers["accept"] == "application/json"
        if method == "POST":
            form = BytesParser().parsebytes(b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
            (part,) = form.get_payload()  # type: ignore[misc]
            assert part.get_param("name", header="content-disposition") == "file"  # type: ignore[union-attr]
            assert str(part.get_filename()).endswith(".ndjson")  # type: ignore[union-attr]


def test_what_kibana_refuses_is_told_with_its_reason(serve: Serve) -> None:
    answer = {
        "success": False,
        "successCount": 1,
        "errors": [{"id": "1", "meta": {"title": "files"}, "error": {"type": "conflict"}}],
    }
    fake = serve(lambda *_: (200, answer))
    with provision.kibana_at(fake.url, fake.config) as cluster, pytest.raises(ClusterError, match="files: conflict"):
        provision.import_objects(cluster, "x")


@pytest.mark.parametrize(
    "url",
    ["kibana.example", "ftp://kibana", "https://", "https://u:p@kibana.example", "http://k:99999999", "https://k?x=1"],
)
def test_what_is_no_url_of_a_kibana_is_refused(url: str) -> None:
    with pytest.raises(ClusterError):
        provision.kibana_at(url, EsConfig())


def test_files_for_kibana_are_always_written(tmp_path: Path) -> None:
    os.umask(0o022)
    provision.write_ndjson("x", tmp_path / "kibana")
    provision.write_ndjson("x", tmp_path / "kibana")
    found = {path.name: path for path in (tmp_path / "kibana").iterdir()}
    assert set(found) == {"kibana-objects.ndjson", "detection-rules.ndjson"}
    assert [json.loads(line) for line in found["kibana-objects.ndjson"].read_text().splitlines()] == kibana.objects("x")
    assert all(path.stat().st_mode & 0o007 == 0 for path in found.values())
