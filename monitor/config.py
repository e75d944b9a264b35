"""Owns the configuration as a file: checks one against the declared keys; from these also the sample and the reference.

It never reads a secret's file, applies a setting, or shows a secret in a text, an error or a repr.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin

from monitor import config_file
from monitor.config_file import Node, Refused, absolute_path, choice, described, dotted, integer, mismatch, nearest
from monitor.config_keys import KEYS, Config, EsConfig, Key

ConfigError = config_file.ConfigError
DEFAULT_PATHS = (Path("/var/config.json"), Path("/etc/ebpf-monitor/config.json"))

_SECTION = "es_config"
_BY_NAME = {key.name: key for key in KEYS}
_SECTION_NAMES = [item.name for item in fields(EsConfig)]
_TOP_NAMES = [item.name for item in fields(Config)]


# --- from JSON values to a Config -------------------------------------------------------------------------------------


def _scalar(key: Key, kind: Any, value: object) -> object:
    """`value` as `kind` (a type of the declaration, or of the entries of its list), or Refused."""
    if kind is bool:
        if not isinstance(value, bool):
            raise mismatch("true or false", value)
        return value
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
    """Turns one parsed file into a Config."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[str, int] = {}  # of the values of the keys read

    def config(self, root: Node) -> Config:
        values = self.section(root, "")
        if _SECTION in values:
            values[_SECTION] = EsConfig(**values[_SECTION])
        config = Config(**values)
        self.cross_checks(config.es_config)
        return config

    def section(self, node: Node, prefix: str) -> dict[str, Any]:
        if not isinstance(node.value, dict):
            where = prefix.removesuffix(".") or None
            opening = "" if where else "the file must hold one object: "
            message = f"{opening}expected an object {{...}}, found {described(node.value)}"
            raise ConfigError(message, file=self.file, line=node.line, key=where)
        values: dict[str, Any] = {}
        for name, child in node.value.items():
            if name == _SECTION and not prefix:
                values[name] = self.section(child, f"{_SECTION}.")
            elif prefix + name in _BY_NAME and "." not in name:
                values[name] = self.value(_BY_NAME[prefix + name], child)
            else:
                self.unknown(name, child, prefix)
        return values

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
        self.lines[key.name] = node.line
        if get_origin(key.type) is not tuple:
            return self.scalar(key, key.type, node, key.name)
        kind = get_args(key.type)[0]
        if key.single and not isinstance(node.value, list):
            if not isinstance(node.value, str):
                self.refuse(str(mismatch("a string or a list of strings", node.value)), node, key.name)
            return (self.scalar(key, kind, node, key.name),)
        if not isinstance(node.value, list):
            self.refuse(str(mismatch("a list of strings", node.value)), node, key.name)
        entries = node.value
        if key.maximum is not None and not (key.minimum or 0) <= len(entries) <= key.maximum:
            self.refuse(f"{len(entries)} entries; allowed: {_range(key)}", node, key.name)
        result: list[object] = []
        for position, entry in enumerate(entries):
            where = f"{key.name}[{position}]"
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
        names = [key.removeprefix(f"{_SECTION}.") for key in self.lines]  # in the order of the file
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
        raise ConfigError(message, file=self.file, line=self.lines[key], key=key)


def loads(data: bytes, file: str) -> Config:
    """The configuration in `data`; `file` is only its name in errors. Raises only ConfigError."""
    return _Reader(file).config(config_file.parse(data, file, (_SECTION,)))


def load(path: Path) -> Config:
    """The configuration in the file `path`, which others must not be able to change. Raises only ConfigError."""
    data, status = config_file.read_trusted(path)
    reader = _Reader(str(path))
    config = reader.config(config_file.parse(data, str(path), (_SECTION,)))
    for key in KEYS:
        if key.secret and _current(config, key) and status.st_mode & stat.S_IROTH:
            shown = config_file.printable(str(path), 4096)
            message = f"a secret in a file that others can read; take that away: chmod o-r {shown}"
            raise ConfigError(message, file=str(path), line=reader.lines[key.name], key=key.name)
    return config


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


def _current(config: Config, key: Key) -> Any:
    section, _, name = key.name.rpartition(".")
    return getattr(config.es_config if section else config, name)


def _plain(key: Key, value: Any) -> Any:
    """A value as JSON has it."""
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
        value = _plain(key, _current(config, key))
        if hide and key.secret:
            value = "***" if value else "(not set)"
        (result.setdefault(section, {}) if section else result)[name] = value
    return result


def effective(config: Config) -> dict[str, Any]:
    """The configuration as a JSON object of the file's form, each secret as "***" or "(not set)"."""
    return _document(config, hide=True)


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
    if get_origin(key.type) is tuple:
        return "string or list of strings" if key.single else "list of strings"
    return {bool: "boolean", int: "integer"}.get(key.type, "string")


def reference() -> str:
    """Every key as a Markdown table, ending in a newline."""
    lines = ["| Key | Type | Default | Unit | Allowed | Documentation |", "|---|---|---|---|---|---|"]
    for key in KEYS:
        default = _plain(key, key.default)
        shown = "(not set)" if default == "" else f"`{json.dumps(default)}`"
        doc = f"{key.doc} Secret: never shown." if key.secret else key.doc
        cells = (f"`{key.name}`", _type_name(key), shown, key.unit, _allowed(key), doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
