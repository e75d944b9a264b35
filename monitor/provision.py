"""What `setup-elasticsearch` installs: index template, ILM policy, Kibana objects, and the shipper's role and key.

Everything may be done again: what is there already is found, and brought up to date. Never touches a document.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from monitor import kibana, mapping, rules
from monitor.cluster import Cluster, ClusterError, reason
from monitor.config_keys import EsConfig
from monitor.mapping import Features
from monitor.model import SCHEMA

_PROBE_PRIORITY = 2_000_000_000
ROLE = "ebpf-monitor-shipper"
_OURS = 'alert.attributes.tags:"ebpf-monitor"'


@dataclass(frozen=True)
class Step:
    """One thing that was done, found done, or left to the operator: `state` is a word, `text` a sentence."""

    what: str
    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.what:<16} {self.state:<10} {self.text}"


def features(cluster: Cluster) -> Features:
    """What this server has: it is asked whether it would take a template with just that. Raises ClusterError, EsError."""
    return Features(
        wildcard=_takes(cluster, {"mappings": {"properties": {"a": {"type": "wildcard"}}}}),
        logsdb=_takes(cluster, {"settings": {"index": {"mode": "logsdb", "mapping.source.mode": "stored"}}}),
        ilm=_takes(cluster, {"settings": {"index": {"lifecycle.name": "a"}}}),
    )


def _takes(cluster: Cluster, template: dict[str, Any]) -> bool:
    body = {"index_patterns": [f"ebpf-monitor-probe-{uuid.uuid4()}"], "priority": _PROBE_PRIORITY, "template": template}
    status, found = cluster.ask("POST", "/_index_template/_simulate", body)
    if status not in (200, 400):
        raise ClusterError(f"cannot ask what the server has: {status}: {reason(found)}")
    return status == 200


# ---- what is in the way ----------------------------------------------------------------------------------------------


def obstacles(cluster: Cluster, index: str) -> Iterator[str]:
    """What makes delivery into `index`-DATE impossible, each with the way out. Raises ClusterError and EsError."""
    found = cluster.need("GET", f"/_resolve/index/{quote(index)}*?expand_wildcards=all")
    for entry in found.get("indices", []):
        if entry["name"] == index:
            yield (
                f"there is an index called {index}, which is the name of the alias for all our indices (the original tool "
                "wrote such a flat index; its documents have another form). Keep it under another name (set "
                f"index.blocks.write, POST /{index}/_clone/OTHER, DELETE /{index}), or set es_config.es_index to another name"
            )
    for entry in found.get("data_streams", []):
        if entry["name"] == index or entry["name"].startswith(f"{index}-"):
            yield (
                f"there is a data stream called {entry['name']}: an index of ours may not have such a name. "
                "Set es_config.es_index to another name, or delete the data stream"
            )
    for entry in found.get("aliases", []):
        if entry["name"] == index:
            strange = [one for one in entry["indices"] if not one.startswith(f"{index}-")]
            if strange:
                yield (
                    f"there is an alias called {index} for {', '.join(strange)}: searches would mix their documents with ours. "
                    "Remove it there (POST /_aliases), or set es_config.es_index to another name"
                )


def old_indices(cluster: Cluster, index: str) -> dict[str, str]:
    """Indices that our template's pattern takes in and that do not have our mapping's version: name -> what they have."""
    found = cluster.need(
        "GET",
        f"/{quote(index)}-*/_mapping?allow_no_indices=true&filter_path=*.mappings._meta,*.mappings.dynamic,*.mappings.properties.pid",
    )
    names = [one["name"] for one in cluster.need("GET", f"/_resolve/index/{quote(index)}-*").get("indices", [])]
    told = {}
    for name in names:
        mappings = found.get(name, {}).get("mappings", {})
        version = mappings.get("_meta", {}).get("ebpf_monitor", {}).get("schema")
        if version is None:
            flat = mappings.get("properties", {}).get("pid", {}).get("type", "alias") != "alias"
            told[name] = "flat documents of the original tool" if flat else "a mapping that is not ours"
        elif version != SCHEMA:
            told[name] = f"our mapping's version {version}"
    return told


# ---- installing ------------------------------------------------------------------------------------------------------


def install(cluster: Cluster, index: str, days: int | None = None) -> Iterator[Step]:
    """Installs or renews template and policy; nothing is changed while an obstacle is there. Raises ClusterError, EsError.

    `days` is the retention; None: what is installed stays, else mapping.RETENTION_DAYS.
    """
    problems = list(obstacles(cluster, index))
    if problems:
        raise ClusterError("nothing was changed: " + "; ".join(problems))
    has = features(cluster)
    words = [f"{name} {'yes' if there else 'no'}" for name, there in vars(has).items()]
    yield Step("server", "asked", ", ".join(words))
    yield _retention(cluster, index, has, days)
    yield _template(cluster, index, has)
    yield from _present(cluster, index, has)


def _retention(cluster: Cluster, index: str, has: Features, days: int | None) -> Step:
    if not has.ilm:
        return Step(
            "retention",
            "yours",
            f"this server has no ILM: delete old indices yourself, for instance daily DELETE /{index}-YYYY.MM.DD",
        )
    path = f"/_ilm/policy/{quote(index)}"
    status, found = cluster.ask("GET", path)
    kept = found.get(index, {}).get("policy", {}) if status == 200 else {}
    age = kept.get("phases", {}).get("delete", {}).get("min_age")
    if age and days is None:
        return Step("retention", "unchanged", f"policy {index} deletes after {age}")
    days = mapping.RETENTION_DAYS if days is None else days
    cluster.need("PUT", path, mapping.policy(days))
    state = "created" if not kept else "unchanged" if age == f"{days}d" else "updated"
    return Step("retention", state, f"policy {index} deletes an index {days} days after it was made")


def _digest(document: Any) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _template(cluster: Cluster, index: str, has: Features) -> Step:
    wanted = mapping.template(index, has)
    wanted["_meta"] = wanted["_meta"] | {"digest": _digest(wanted)}
    path = f"/_index_template/{quote(index)}"
    status, found = cluster.ask("GET", path)
    there = found["index_templates"][0]["index_template"] if status == 200 else None
    if there is not None and "ebpf_monitor" not in there.get("_meta", {}):
        raise ClusterError(
            f"there is an index template called {index} that is not ours; rename it, or set es_config.es_index to another name"
        )
    cluster.need("PUT", path, wanted)
    made = cluster.need("POST", f"/_index_template/_simulate_index/{quote(index)}-2026.11.22")
    if made["template"].get("mappings", {}).get("_meta") != mapping.meta():
        others = ", ".join(_winners(cluster, index))
        raise ClusterError(
            f"another index template wins over ours for {index}-*: {others}; lower its priority below {mapping.PRIORITY}"
        )
    same = there is not None and there["_meta"].get("digest") == wanted["_meta"]["digest"]
    state = "created" if there is None else "unchanged" if same else "updated"
    kind = "full (wildcard)" if has.wildcard else "minimal (keyword)"
    store = "logsdb" if has.logsdb else "best_compression"
    return Step("index template", state, f"{index} for {index}-*, mapping {kind}, {store}, version {SCHEMA}")


def _winners(cluster: Cluster, index: str) -> Iterator[str]:
    """Templates that take our indices and have a higher priority than ours."""
    for one in cluster.need("GET", "/_index_template")["index_templates"]:
        about = one["index_template"]
        patterns = about.get("index_patterns", [])
        takes = any(fnmatch.fnmatchcase(f"{index}-2026.11.22", pattern) for pattern in patterns)
        if takes and about.get("priority", 0) > mapping.PRIORITY:
            yield one["name"]


def _present(cluster: Cluster, index: str, has: Features) -> Iterator[Step]:
    """New fields of a newer catalogue go into the indices that are there; what is not ours is told."""
    old = old_indices(cluster, index)
    for name, text in old.items():
        yield Step(
            "old index",
            "left",
            f"{name} has {text}: the shipper will not write into it. Rename or delete it if it is of today or later",
        )
    names = [one["name"] for one in cluster.need("GET", f"/_resolve/index/{quote(index)}-*").get("indices", [])]
    properties = {"properties": mapping.mapping(has)["properties"]}
    renewed = 0
    for name in names:
        if name in old:
            continue
        status, found = cluster.ask("PUT", f"/{quote(name)}/_mapping", properties)
        renewed += status == 200
        if status != 200:
            yield Step("index", "left", f"{name} keeps its mapping: {reason(found)}")
    if renewed:
        yield Step("indices", "up to date", f"{renewed} with our mapping, new fields included")


# ---- the shipper's key -----------------------------------------------------------------------------------------------


def shipper_key(cluster: Cluster, index: str, path: Path) -> Step:
    """Makes the role and an API key with just its rights, and writes the key to `path` (0600). A file that is there stays.

    Raises ClusterError, EsError and OSError.
    """
    if path.exists():
        return Step(
            "shipper's key", "unchanged", f"{path} is there; delete it (and the key in Elasticsearch) for a new one"
        )
    role = mapping.role(index)
    cluster.need("PUT", f"/_security/role/{ROLE}", role | {"metadata": mapping.meta()})
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)  # before the key is made: a key that cannot be kept should not exist
    kept = 0
    try:
        body = {"name": f"{ROLE} {index}", "role_descriptors": {ROLE: role}, "metadata": mapping.meta()}
        encoded = cluster.need("POST", "/_security/api_key", body).get("encoded")
        if not isinstance(encoded, str):
            raise ClusterError("the server made an API key, but did not say it")
        kept = os.write(descriptor, encoded.encode() + b"\n")
    finally:
        os.close(descriptor)
        if not kept:
            path.unlink()
    return Step("shipper's key", "created", f"role {ROLE}; the key is in {path}: set es_config.api_key_file to it")


# ---- Kibana ----------------------------------------------------------------------------------------------------------


def write_ndjson(index: str, directory: Path) -> Step:
    """Writes the objects and the rules for this index name as files that Kibana imports. Raises OSError."""
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    for name, text in (("kibana-objects.ndjson", kibana.ndjson(kibana.objects(index))),
                       ("detection-rules.ndjson", kibana.ndjson(rules.documents(index)))):  # fmt: skip
        scratch = directory / f".{name}.new"
        scratch.write_text(text, encoding="utf-8")
        scratch.chmod(0o640)
        scratch.replace(directory / name)
    return Step(
        "Kibana files",
        "written",
        f"{directory}/kibana-objects.ndjson (Stack Management, Saved Objects, Import) and detection-rules.ndjson",
    )


def kibana_at(url: str, es: EsConfig) -> Cluster:
    """Kibana at this URL, with the same credentials and authorities. Raises ClusterError for what is no URL of a Kibana."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ClusterError(f"{url!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ClusterError(
            f"{url!r} is not the URL of a Kibana, as https://kibana.example:5601 or https://kibana.example/s/security"
        )
    if parts.username or parts.password:
        raise ClusterError("no user and password in the URL: name a file with --credentials")
    secure = parts.scheme == "https"
    there = replace(es, es_host=(parts.hostname,), es_port=port or (443 if secure else 80), secure=secure)
    headers = {"kbn-xsrf": "ebpf-monitor", "accept": "application/json"}
    return Cluster(there, parts.path.rstrip("/"), headers)


def _form(name: str, text: str) -> tuple[bytes, str]:
    """(body, content type) of a form with one file in it (RFC 7578)."""
    boundary = f"ebpf-monitor-{uuid.uuid4().hex}"
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/ndjson'
    body = f"--{boundary}\r\n{head}\r\n\r\n{text}\r\n--{boundary}--\r\n"
    return body.encode(), f"multipart/form-data; boundary={boundary}"


def import_objects(there: Cluster, index: str) -> Step:
    """Imports data view, searches and dashboards over older ones of the same ids. Raises ClusterError and EsError."""
    objects = kibana.objects(index)
    found = _import(there, "/api/saved_objects/_import?overwrite=true", "kibana-objects.ndjson", kibana.ndjson(objects))
    if not found.get("success") or found.get("successCount") != len(objects):
        raise ClusterError(f"Kibana took {found.get('successCount', 0)} of {len(objects)} objects: {_errors(found)}")
    return Step("Kibana objects", "imported", f"{len(objects)}: a data view, saved searches and dashboards")


def import_rules(there: Cluster, index: str) -> Step:
    """Imports the detection rules: new ones switched off, known ones as they are. Raises ClusterError and EsError."""
    status, found = there.ask("GET", f"/api/detection_engine/rules/_find?per_page=500&filter={quote(_OURS)}")
    on = {one["rule_id"] for one in found.get("data", []) if one.get("enabled")} if status == 200 else set()
    documents = [one | {"enabled": one["rule_id"] in on} for one in rules.documents(index)]
    path = "/api/detection_engine/rules/_import?overwrite=true"
    found = _import(there, path, "detection-rules.ndjson", kibana.ndjson(documents))
    if not found.get("success") or found.get("success_count") != len(documents):
        raise ClusterError(f"Kibana took {found.get('success_count', 0)} of {len(documents)} rules: {_errors(found)}")
    return Step(
        "detection rules", "imported", f"{len(documents)}, {len(on)} switched on: enable in Kibana those that fit"
    )


def _import(there: Cluster, path: str, name: str, text: str) -> dict[str, Any]:
    body, content_type = _form(name, text)
    found: dict[str, Any] = there.need("POST", path, body, {"content-type": content_type})
    return found


def _errors(found: dict[str, Any]) -> str:
    told = []
    for one in found.get("errors", [])[:3]:
        error = one.get("error", {})
        name = one.get("meta", {}).get("title") or one.get("title") or one.get("rule_id") or one.get("id")
        told.append(f"{name}: {error.get('message') or error.get('type')}")
    return "; ".join(told) or "it gave no reason"
