"""Owns the configuration as a file: checks one against the declared keys; from these also the sample and the reference.

It never reads a secret's file, applies a setting, or shows a secret in a text, an error or a repr.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin

from monitor import config_exclusions, config_file, rotation
from monitor.config_file import (
    Node,
    Refused,
    absolute_path,
    boolean,
    choice,
    described,
    dotted,
    integer,
    mismatch,
    nearest,
)
from monitor.config_keys import KEYS, Config, EsConfig, Exclusions, Key, Labels

ConfigError = config_file.ConfigError
DEFAULT_PATHS = (Path("/var/config.json"), Path("/etc/ebpf-monitor/config.json"))
DROP_INS = Path("/etc/ebpf-monitor/conf.d")

_SECTION = "es_config"
_BY_NAME = {key.name: key for key in KEYS}
_SECTION_NAMES = [item.name for item in fields(EsConfig)]
_TOP_NAMES = [item.name for item in fields(Config)]
_LABEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Place:
    """Where a value stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{config_file.printable(self.file, 4096)}:{self.line}"


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where it comes from: `places` has the keys that are not left at their default, and each label
    (`labels.site`)."""

    config: Config
    places: dict[str, Place]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sources:
    """The files that make the configuration: `main`, if there is one, and then *.json of the directory `drop_ins`."""

    main: Path | None
    drop_ins: Path

    def files(self) -> tuple[Path, ...]:
        """In the order in which they are merged. Raises ConfigError for a directory that others can change."""
        return (*((self.main,) if self.main else ()), *_drop_ins(self.drop_ins))


# --- from JSON values to a Config -------------------------------------------------------------------------------------


def _scalar(key: Key, kind: Any, value: object) -> object:
    """`value` as `kind` (a type of the declaration, or of the entries of its list), or Refused."""
    if kind is bool:
        return boolean(value)
    result: object
    if kind is int:
        result = integer(value, key.minimum, key.maximum)
    elif key.choices:
        result = choice(value, key.choices)
    else:
        result = config_file.text(value)
        if kind is Path or isinstance(kind, UnionType):  # Path | None
            return absolute_path(result) if result or kind is Path else None
    return key.rule(result) if key.rule else result


def _range(key: Key) -> str:
    return f"{key.minimum} to {key.maximum}"


class _Reader:
    """Turns parsed files into a Config: of a key that stands in several files the last one's value counts."""

    def __init__(self) -> None:
        self.file = ""
        self.values: dict[str, Any] = {}
        self.places: dict[str, Place] = {}

    def read(self, root: Node, file: str) -> None:
        """Takes the values of one more file."""
        self.file = file
        self.section(root, "")

    def config(self) -> Config:
        """What all files together say."""
        own = {name.removeprefix(f"{_SECTION}."): value for name, value in self.values.items() if "." in name}
        top = {name: value for name, value in self.values.items() if "." not in name}
        config = Config(**top, es_config=EsConfig(**own))
        self.cross_checks(config.es_config)
        return config

    def section(self, node: Node, prefix: str) -> None:
        if not isinstance(node.value, dict):
            where = prefix.removesuffix(".") or None
            opening = "" if where else "the file must hold one object: "
            message = f"{opening}expected an object {{...}}, found {described(node.value)}"
            raise ConfigError(message, file=self.file, line=node.line, key=where)
        for name, child in node.value.items():
            if name == _SECTION and not prefix:
                self.section(child, f"{_SECTION}.")
            elif prefix + name in _BY_NAME and "." not in name:
                self.take(_BY_NAME[prefix + name], child)
            else:
                self.unknown(name, child, prefix)

    def take(self, key: Key, node: Node) -> None:
        """One key's value: in the place of an earlier file's, but labels beside those of earlier files."""
        value = self.labels(key, node) if key.type == Labels else self.value(key, node)
        if key.type == Labels:
            value = tuple(sorted((dict(self.values.get(key.name, ())) | value).items()))  # type: ignore[operator]
            if len(value) > (key.maximum or 0):
                self.refuse(f"{len(value)} entries in all files together; allowed: {_range(key)}", node, key.name)
        self.values[key.name] = value
        if key.type == Labels and isinstance(node.value, dict):
            for name, child in node.value.items():
                self.place(f"{key.name}.{name}", child)
        else:
            self.place(key.name, node)

    def place(self, name: str, node: Node) -> None:
        """Keeps where a value stands: places are in the order of reading."""
        self.places.pop(name, None)
        self.places[name] = Place(self.file, node.line)

    def labels(self, key: Key, node: Node) -> dict[str, object]:
        """An object of strings. No error repeats a name: it may be part of a misplaced secret."""
        if not isinstance(node.value, dict):
            self.refuse(str(mismatch("an object of strings", node.value)), node, key.name)
        for name, child in node.value.items():
            if not _LABEL_NAME.fullmatch(name):
                self.refuse("the name of a label has 1 to 64 letters, digits, '_' and '-'", child, key.name)
        return {name: self.scalar(key, str, child, key.name) for name, child in node.value.items()}

    def unknown(self, name: str, node: Node, prefix: str) -> NoReturn:
        here, there = (_SECTION_NAMES, _TOP_NAMES) if prefix else (_TOP_NAMES, _SECTION_NAMES)
        if name in there:
            hint = f"; it belongs {'outside' if prefix else 'inside'} {_SECTION}"
        elif not prefix and name in _BY_NAME:
            hint = f"; write {name.removeprefix(_SECTION + '.')} inside the object {_SECTION}"
        else:
            hint = nearest(name, here) or f"; valid keys here: {', '.join(here)}"
        shown = dotted([*prefix.split(".")[:1], name] if prefix else [name])
        raise ConfigError(f"unknown key{hint}", file=self.file, line=node.key_line, key=shown)

    def value(self, key: Key, node: Node) -> object:
        if get_origin(key.type) is not tuple:
            return self.scalar(key, key.type, node, key.name)
        kind = get_args(key.type)[0]
        if key.single and not isinstance(node.value, list):
            if not isinstance(node.value, str):
                self.refuse(str(mismatch("a string or a list of strings", node.value)), node, key.name)
            return (self.scalar(key, kind, node, key.name),)
        if not isinstance(node.value, list):
            wanted = "a list of objects" if key.type == Exclusions else "a list of strings"
            self.refuse(str(mismatch(wanted, node.value)), node, key.name)
        entries = node.value
        if key.maximum is not None and not (key.minimum or 0) <= len(entries) <= key.maximum:
            self.refuse(f"{len(entries)} entries; allowed: {_range(key)}", node, key.name)
        result: list[object] = []
        for position, entry in enumerate(entries):
            where = f"{key.name}[{position}]"
            if key.type == Exclusions:
                value: object = config_exclusions.read(entry, where, self.refuse)
                names = [getattr(rule, "name", "") for rule in (*result, value)]
                if names[-1] in names[:-1]:
                    self.refuse(f"two rules have the name {names[-1]}", entry, where)
            else:
                value = self.scalar(key, kind, entry, where)
            if value in result:
                self.refuse(f"the same entry as {key.name}[{result.index(value)}]", entry, where)
            result.append(value)
        return tuple(result)

    def scalar(self, key: Key, kind: Any, node: Node, where: str) -> object:
        try:
            return _scalar(key, kind, node.value)
        except Refused as error:
            message = str(error)
        return self.refuse(message, node, where)

    def refuse(self, message: str, node: Node, where: str) -> NoReturn:
        raise ConfigError(message, file=self.file, line=node.line, key=where)

    def cross_checks(self, es: EsConfig) -> None:
        credentials = ("es_password", "password_file", "api_key", "api_key_file")
        names = [key.removeprefix(f"{_SECTION}.") for key in self.places]  # in the order of reading
        given = [name for name in names if name in credentials and getattr(es, name)]
        if len(given) > 1:
            self.contradiction(f"only one credential is allowed, and {given[0]} is set as well", given[1])
        pointless: tuple[str, ...] = ()
        reason = ""
        if not es.secure:
            pointless, reason = ("ca_certs", "ca_fingerprint"), "es_config.secure is false (no TLS)"
        elif es.insecure:
            pointless, reason = ("ca_certs", "ca_fingerprint"), "es_config.insecure is true (nothing is verified)"
        for name in pointless:
            if getattr(es, name):
                self.contradiction(f"has no meaning while {reason}", name)

    def contradiction(self, message: str, name: str) -> NoReturn:
        key = f"{_SECTION}.{name}"
        raise ConfigError(message, file=self.places[key].file, line=self.places[key].line, key=key)


def loads(data: bytes, file: str) -> Config:
    """The configuration in `data`; `file` is only its name in errors. Raises only ConfigError."""
    reader = _Reader()
    reader.read(config_file.parse(data, file, (_SECTION,)), file)
    return reader.config()


def read(sources: Sources) -> Loaded:
    """The configuration that all files together make; others must not be able to change any. Raises only ConfigError."""
    reader, open_to_all, files = _Reader(), set(), sources.files()
    for path in files:
        data, status = config_file.read_trusted(path)
        reader.read(config_file.parse(data, str(path), (_SECTION,)), str(path))
        if status.st_mode & stat.S_IROTH:
            open_to_all.add(str(path))
    config = reader.config()
    for key in KEYS:
        place = reader.places.get(key.name)
        if key.secret and current(config, key) and place is not None and place.file in open_to_all:
            shown = config_file.printable(place.file, 4096)
            message = f"a secret in a file that others can read; take that away: chmod o-r {shown}"
            raise ConfigError(message, file=place.file, line=place.line, key=key.name)
    _one_rotator(config, reader.places)
    return Loaded(config, reader.places, files)


def _one_rotator(config: Config, places: dict[str, Place]) -> None:
    rule = rotation.rule_for(config.events_dir / config.log_name) if config.rotate_bytes else None
    if rule is not None:
        place = places["rotate_bytes"]
        message = f"the log would be rotated twice: by rotate_bytes, and by logrotate's section at {rule}; set one of them off"
        raise ConfigError(message, file=place.file, line=place.line, key="rotate_bytes")


def load(path: Path) -> Config:
    """The configuration in the file `path` and in `conf.d` beside it. Raises only ConfigError."""
    return read(Sources(path, path.parent / DROP_INS.name)).config


def locate(explicit: Path | None) -> Sources:
    """The file to load (`find`) and its drop-ins: `conf.d` beside an explicit file, else DROP_INS. Raises ConfigError."""
    return Sources(find(explicit), DROP_INS if explicit is None else explicit.parent / DROP_INS.name)


def _drop_ins(directory: Path) -> list[Path]:
    """The drop-in files, by name: what ends in .json and is not hidden, so that editors' copies are none."""
    name = str(directory)
    try:
        about = os.stat(directory)
        if not stat.S_ISDIR(about.st_mode):
            raise ConfigError("is not a directory", file=name)
        with os.scandir(directory) as entries:
            found = sorted(entry.name for entry in entries if entry.name.endswith(".json") and entry.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except ValueError:
        raise ConfigError("not a possible directory name", file=name) from None
    except PermissionError:
        raise ConfigError("this user may not read it; run as root", file=name) from None
    except OSError as error:
        raise ConfigError(f"cannot be listed: {os.strerror(error.errno or 5)}", file=name) from None
    if found:
        config_file.require_trusted(about, name)
    return [directory / entry for entry in found]


def find(explicit: Path | None) -> Path | None:
    """The file to load: `explicit`, else the first of DEFAULT_PATHS that is there, else None (use `Config()`).

    An explicit path that is not there is a ConfigError. A default path that is there but unusable is left to `load`.
    """
    for path in (explicit,) if explicit is not None else DEFAULT_PATHS:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            return path
        return path
    if explicit is not None:
        raise ConfigError("no such file", file=str(explicit))
    return None


# --- from a Config to text --------------------------------------------------------------------------------------------


def current(config: Config, key: Key) -> Any:
    """The value that a key has in a configuration."""
    section, _, name = key.name.rpartition(".")
    return getattr(config.es_config if section else config, name)


def _plain(key: Key, value: Any) -> Any:
    """A value as JSON has it."""
    if key.type == Labels:
        return dict(value)
    if key.type == Exclusions:
        return [config_exclusions.plain(rule) for rule in value]
    if isinstance(value, tuple):
        entries = [str(entry) for entry in value]
        return entries[0] if key.single and len(entries) == 1 else entries
    if isinstance(value, Path):
        return str(value)
    return "" if value is None else value


def _document(config: Config, hide: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in KEYS:
        section, _, name = key.name.rpartition(".")
        value = _plain(key, current(config, key))
        if hide and key.secret:
            value = "***" if value else "(not set)"
        (result.setdefault(section, {}) if section else result)[name] = value
    return result


def effective(config: Config) -> dict[str, Any]:
    """The configuration as a JSON object of the file's form, each secret as "***" or "(not set)"."""
    return _document(config, hide=True)


def digest(config: Config) -> str:
    """16 hexadecimal digits that change with every value but a secret's."""
    return hashlib.sha256(json.dumps(effective(config), sort_keys=True).encode()).hexdigest()[:16]


def changed(before: Config, after: Config) -> list[Key]:
    """The keys whose values differ, secrets too."""
    return [key for key in KEYS if current(before, key) != current(after, key)]


def without_secrets(config: Config) -> dict[str, Any]:
    """The configuration as a JSON object that `loads` takes, each secret left out."""
    result = _document(config, hide=False)
    for key in KEYS:
        if key.secret:
            section, _, name = key.name.rpartition(".")
            (result[section] if section else result)[name] = ""
    return result


def sample() -> str:
    """The text of the sample configuration file: each key with its default, ending in a newline."""
    return json.dumps(_document(Config(), hide=False), indent=2) + "\n"


def _allowed(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices)
    bounds = ""
    if key.maximum is not None:
        bounds = _range(key) + (" entries" if get_origin(key.type) is tuple else "")
    if key.type is bool:
        return "`true`, `false`"
    path = "an absolute path without `..`" if key.type in (Path, Path | None) else ""
    return "; ".join(part for part in (bounds, path, key.allowed) if part)


def _type_name(key: Key) -> str:
    if key.type == Labels:
        return "object of strings"
    if key.type == Exclusions:
        return "list of objects"
    if get_origin(key.type) is tuple:
        return "string or list of strings" if key.single else "list of strings"
    return {bool: "boolean", int: "integer"}.get(key.type, "string")


def reference() -> str:
    """Every key as a Markdown table, ending in a newline. Live: a running monitor takes a change of the file."""
    lines = ["| Key | Type | Default | Unit | Allowed | Live | Documentation |", "|---|---|---|---|---|---|---|"]
    for key in KEYS:
        default = _plain(key, key.default)
        shown = "(not set)" if default == "" else f"`{json.dumps(default)}`"
        doc = f"{key.doc} Secret: never shown." if key.secret else key.doc
        cells = (f"`{key.name}`", _type_name(key), shown, key.unit, _allowed(key), "yes" if key.live else "", doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
