"""The architecture, as data that is checked: which module of monitor/ stands in which layer and what it may import.

Owns the table of layers; reads the program's source by ast and never imports it.
"""

from __future__ import annotations

import ast
import configparser
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "monitor"

# Top to bottom. A module imports modules of lower layers, and of its own layer as long as no circle arises.
# A new module needs a place here; a name of this table that has no file yet is a part that is not built yet.
LAYERS: dict[str, tuple[str, ...]] = {
    # click only, no logic
    "commands": ("__main__", "cli"),
    # composition, signals, drain
    "composition": ("app", "delivery", "steering", "live", "startup", "instance", "notify"),
    # what people ask for beside capture
    "questions": (
        *("coverage", "doctor", "generate", "metrics", "replay", "search", "status", "verify"),
        *("cluster", "indexed", "verify_index", "provision", "dashboards", "kibana", "rules"),  # what Elasticsearch and Kibana are given
        *("compact", "display", "timewords", "answers", "parts"),  # how a question is put, and the answer shown
    ),
    # between kernel and log, and the log itself
    "stages": (
        # records to lines, in order
        *(
            "decode",
            "encode",
            "describe",
            "fileacts",
            "processacts",
            "templates",
            "fastpath",
            "fastrecords",
            "fasttext",
            "fastframe",
            "fastbits",
            "ahead",
            "mirror",
            "tables",
            "constants",
            "order",
            "sessions",
            "pipeline",
            "clock",
        ),
        *("procfs", "enrich", "names", "naming", "proctable"),  # who did it
        *("redact", "redact_rules", "hashing", "quiet", "exclusions"),  # what is masked and added before
        *(
            "log", "logdir", "frames", "compressor",
            "logfiles", "scan", "retention",
            "durable",
            "ledger",
            "recovery",
            "recording",
            "reader",
            "tamper",
        ),  # what is kept, and the proof of it
        "kernel",  # what is captured
        *("ship", "sinks"),  # the log to where people search
    ),
    # one declaration per key
    "configuration": ("config", "config_keys", "config_exclusions", "config_file", "embedded", "rotation", "voice"),
    # the catalogue: data
    "catalogue": ("events", "fields", "mapping"),
    # types, no input or output
    "model": ("__init__", "model"),
}

# Who may import what comes from elsewhere (prefixes of module names). Not listed here: everybody.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "bcc": ("kernel",),
    "click": ("cli", "__main__"),
    "elasticsearch": ("sinks",),
    "urllib3": ("sinks",),
}

MODULE_LINES, FUNCTION_LINES, BROAD_EXCEPTS = 500, 60, 2
BANNED_NAMES = {"utils", "helpers", "common", "manager", "handler", "base", "core", "data", "info"}

RANK = {part: rank for rank, parts in enumerate(LAYERS.values()) for part in parts}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_bpf" not in path.parts
}
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in FILES.items()}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def part(name: str) -> str:
    """The entry of the table that a module belongs to: "kernel" for "kernel.btf"."""
    return name.split(".")[0]


def imports(name: str) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, at whatever depth of its source."""
    package = ["monitor", *name.split(".")[:-1]]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*start, *((node.module or "").split(".") if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Names, as in FILES, of the program's own modules that a module imports."""
    found = set()
    for dotted in imports(name):
        words = dotted.split(".")
        if words[0] != "monitor":
            continue
        for end in range(len(words), 0, -1):  # the longest prefix that is a file: the rest is a name inside it
            inner = ".".join(words[1:end])
            match = next((known for known in (inner, f"{inner}.__init__".lstrip(".")) if known in FILES), None)
            if match is not None:
                found.add(match)
                break
        else:
            found.add(dotted)
    return found - {name}


def functions(name: str) -> Iterator[Function]:
    return (node for node in ast.walk(TREES[name]) if isinstance(node, Function))


def tracked_files() -> list[Path]:
    """Files under version control or about to be; all files but hidden and built ones where there is no git."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        skipped = {".venv", ".git", "var", "build", "dist", "__pycache__"}
        every = (path for path in ROOT.rglob("*") if not skipped & set(path.relative_to(ROOT).parts))
        listed = [str(path.relative_to(ROOT)) for path in every if "cache" not in str(path.relative_to(ROOT))]
    return [path for path in (ROOT / name for name in listed if name) if path.is_file() and not path.is_symlink()]


every_module = pytest.mark.parametrize("name", FILES)


@every_module
def test_module_has_a_place_in_the_table(name: str) -> None:
    assert part(name) in RANK, f"monitor/{name} is in no layer: give it a place in LAYERS (tests/test_layers.py)"


def test_no_part_stands_in_two_layers() -> None:
    every = [entry for parts in LAYERS.values() for entry in parts]
    assert sorted(every) == sorted(set(every))


@every_module
def test_imports_point_only_downwards(name: str) -> None:
    upward = {other for other in own_imports(name) if RANK.get(part(other), -1) < RANK.get(part(name), 0)}
    assert not upward, f"monitor.{name} stands below what it imports: {sorted(upward)}"


def test_imports_have_no_circle() -> None:
    graph = {name: own_imports(name) for name in FILES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}", pytrace=False)


@every_module
def test_foreign_modules_stay_where_they_belong(name: str) -> None:
    for module in {dotted.split(".")[0] for dotted in imports(name)} & set(ONLY_IN):
        assert part(name) in ONLY_IN[module], f"monitor.{name} imports {module}, which only {ONLY_IN[module]} may"


@every_module
def test_foreign_modules_are_declared(name: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = {line.split()[0] for line in setup["options"]["install_requires"].splitlines() if line}
    undeclared = {dotted.split(".")[0] for dotted in imports(name)} - declared - sys.stdlib_module_names
    assert undeclared <= {"monitor", "bcc"}  # setup.cfg says why bcc is not in install_requires


@every_module
def test_module_is_short_and_says_what_it_is(name: str) -> None:
    lines = len(FILES[name].read_text().splitlines())
    assert lines < MODULE_LINES, f"monitor/{name} has {lines} lines; the limit is {MODULE_LINES - 1}"
    assert not BANNED_NAMES & set(name.split(".")), "a name that says nothing"
    assert ast.get_docstring(TREES[name]), f"monitor/{name} has no docstring"


@every_module
def test_functions_are_short(name: str) -> None:
    # Counted from `def` to the last line of the body, docstring included.
    long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(name)}
    assert not {key: lines for key, lines in long.items() if lines >= FUNCTION_LINES}


@every_module
def test_functions_are_typed(name: str) -> None:
    untyped = []
    for node in functions(name):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        bare = [argument.arg for argument in every if argument.annotation is None]
        bare = [word for word in bare if word not in ("self", "cls")]
        if bare or node.returns is None:
            untyped.append((node.name, node.lineno, bare))
    assert not untyped


def broad_excepts(tree: ast.AST) -> Iterator[int]:
    """Line numbers of handlers that catch everything: bare, Exception, BaseException, alone or in a tuple."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in caught):
                yield node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "suppress":
            yield from (node.lineno for kind in node.args if getattr(kind, "id", "") in ("Exception", "BaseException"))


def test_at_most_two_excepts_catch_everything() -> None:
    found = [(name, line) for name, tree in TREES.items() for line in broad_excepts(tree)]
    assert len(found) <= BROAD_EXCEPTS, found


def test_tracked_files_name_no_registry_and_no_machine() -> None:
    # Written in pieces so that this file does not find itself.
    hosts = [r"pypi\." + "org", r"python" + "hosted", r"deb\.debian" + r"\.org", r"crates\." + "io"]
    hosts += [r"registry\.npm" + "js", r"proxy\.golang" + r"\.org", r"repo\d*\.maven", r"pkg\." + "dev"]
    paths = [r"/wo" + r"rk/", r"/ro" + r"ot/\.", r"/home/\w+/"]
    pattern = re.compile("|".join([*hosts, *paths]).encode())
    found = {
        f"{path.relative_to(ROOT)}:{number}": line.strip()[:120]
        for path in tracked_files()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if pattern.search(line)
    }
    assert not found


def test_broad_excepts_are_recognised() -> None:
    broad = "try: x\nexcept (OSError, Exception): y\ntry: x\nexcept: y\n"
    source = broad + "try: x\nexcept OSError: y\nsuppress(BaseException)"
    assert sorted(broad_excepts(ast.parse(source))) == [2, 4, 7]
