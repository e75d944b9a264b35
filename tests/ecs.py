"""The published Elastic Common Schema, as far as a host's sensor can write it: what the documents and the mapping are checked against.

Owns `ecs.json`, an extract of facts (names, types, arrays, allowed words) from the npm package `@elastic/ecs`, which is
under the Apache License 2.0 (Copyright Elasticsearch B.V.). It is checked in because a test of the documents should need no
Node.js and no network. `npm pack @elastic/ecs@VERSION`, unpack, then `python -m tests.ecs package` writes it anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("ecs.json")
SECTIONS = ("@timestamp", "agent", "container", "destination", "dll", "ecs", "error", "event", "file", "group", "hash", "host",
            "labels", "log", "message", "network", "process", "related", "rule", "service", "source", "tags", "user")  # fmt: skip
_LEFT_OUT = {"pe", "elf", "macho", "x509", "code_signature", "previous",
             "geo", "risk", "entity", "as"}  # fmt: skip
"""Parts of names that no sensor of this kind writes: they would triple the extract."""
_FAMILY = {
    "date_nanos": "date",
    "wildcard": "keyword",
    "constant_keyword": "keyword",
    "match_only_text": "text",
    "flattened": "object",
}
"""What counts as the same type: Elasticsearch's families of types, for which the same queries hold."""
FACTS: dict[str, Any] = json.loads(FILE.read_bytes()) if FILE.is_file() else {"fields": {}}


def family(es: str) -> str:
    """The family of an Elasticsearch type."""
    return _FAMILY.get(es, es)


def types() -> dict[str, str]:
    """Every ECS field of the sections that are kept, with its Elasticsearch type."""
    return {name: es for es, names in FACTS["fields"].items() for name in names}


def extract(package: Path) -> dict[str, Any]:
    """The facts of an unpacked `@elastic/ecs`; needs Node.js."""
    script = (
        "const e = require(process.argv[1]); console.log(JSON.stringify({version: e.EcsVersion, fields: e.EcsFlat}))"
    )
    command = ["node", "-e", script, str((package / "build/commonjs/index.js").resolve())]
    schema = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    kept = {
        name: about
        for name, about in schema["fields"].items()
        if name.split(".")[0] in SECTIONS and not _LEFT_OUT & set(name.split("."))
    }
    fields: dict[str, list[str]] = {}
    for name, about in sorted(kept.items()):
        fields.setdefault(about["type"], []).append(name)
    words = {name: [one["name"] for one in about["allowed_values"]]
             for name, about in kept.items() if about.get("allowed_values")}  # fmt: skip
    words |= {name: about["expected_values"] for name, about in kept.items() if about.get("expected_values")}
    pairs = {one["name"]: one.get("expected_event_types", []) for one in kept["event.category"]["allowed_values"]}
    arrays = sorted(name for name, about in kept.items() if "array" in about["normalize"])
    return {"version": schema["version"], "source": "npm @elastic/ecs, Apache-2.0", "fields": fields, "arrays": arrays,
            "words": words, "pairs": pairs}  # fmt: skip


def main() -> int:
    """Writes `ecs.json`, a line for each type of fields."""
    facts = extract(Path(sys.argv[1]))
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in facts.items()
        if key != "fields"
    ]
    fields = ",\n".join(
        f"{json.dumps(es)}: {json.dumps(names, separators=(',', ':'))}" for es, names in facts["fields"].items()
    )
    FILE.write_text("{\n" + ",\n".join(lines) + ',\n"fields": {\n' + fields + "\n}}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
