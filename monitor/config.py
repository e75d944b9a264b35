"""Owns the configuration: every key declared once, and from that its defaults, checks, sample and reference.

It never reads a secret's file, applies a setting, or shows a secret in a text, an error or a repr.
"""

# ruff: noqa: RUF009 - _key() is dataclasses.field(): a declaration, not a default shared by mistake
from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from monitor import config_file
from monitor.config_file import Node, Refused, absolute_path, choice, described, dotted, integer, mismatch, nearest

ConfigError = config_file.ConfigError
DEFAULT_PATHS = (Path("/var/config.json"), Path("/etc/ebpf-monitor/config.json"))

MIB = 1 << 20
GIB = 1 << 30
DAY_S = 86_400

StorageType = Literal["local", "elasticsearch"]
Profile = Literal["minimal", "standard", "full", "trace"]
ShipProfile = Literal["same", "minimal", "standard", "full", "trace"]
ControlLane = Literal["auto", "ringbuf", "perf"]
LogLevel = Literal["debug", "info", "warning", "error"]
IndexPeriod = Literal["day", "hour"]
Rule = Callable[[Any], Any]


# --- rules for single values: the value as it is kept, or Refused. No rule repeats a value that may hold a secret. ----

_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}")
_INDEX_FORBIDDEN = re.compile(r'[\\/*?"<>| ,#:]')


def _host(value: str) -> str:
    """A host name or address; an IPv6 address loses its brackets."""
    if "://" in value:
        raise Refused("write only the host, without https:// (TLS is es_config.secure, the port es_config.es_port)")
    if "@" in value or "/" in value:
        raise Refused("write only the host; a user belongs in es_config.es_user, and a path is not supported")
    bracketed = value.startswith("[") and value.endswith("]")
    address, percent, scope = (value[1:-1] if bracketed else value).partition("%")
    if address.count(":") > 1 and not value.endswith("]") and value.startswith("["):
        raise Refused("not an IPv6 address in brackets; write only the host, the port belongs in es_config.es_port")
    if address.count(":") > 1 or bracketed:
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise Refused("not an IPv6 address") from None
        if percent and not _SCOPE.fullmatch(scope):
            raise Refused("not the name of a network interface after '%'")
        return address + percent + scope
    if ":" in value:
        raise Refused("write only the host; the port belongs in es_config.es_port")
    if not value.isascii():
        raise Refused("not a host name; an international name is written in its ASCII form (xn--...)")
    labels = value.removesuffix(".").split(".")
    if len(value) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise Refused("not a host name or address (letters, digits, '-', '_' and '.'; at most 253 characters)")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(value)
        except ValueError:
            raise Refused("not an IPv4 address (four numbers from 0 to 255)") from None
    return value


def _index(value: str) -> str:
    """Elasticsearch's rules for index names (MetadataCreateIndexService), leaving room for the date."""
    if value in ("", ".", ".."):
        raise Refused("an index name must not be empty, '.' or '..'")
    forbidden = _INDEX_FORBIDDEN.search(value)
    if forbidden:
        shown = "a space" if forbidden.group() == " " else f"'{forbidden.group()}'"
        raise Refused(f'an index name must not contain {shown}, nor any other of \\ / * ? " < > | space , # :')
    if value[0] in "-_+":
        raise Refused("an index name must not begin with - _ or +")
    if value != value.lower():
        raise Refused("an index name must be lowercase")
    if len(value.encode()) > 200:
        raise Refused("an index name may have at most 200 bytes (the date is appended)")
    return value


def _user(value: str) -> str:
    if ":" in value:
        raise Refused("a user name must not contain ':' (HTTP basic authentication cannot send it)")
    return value


def _api_key(value: str) -> str:
    if not value.isascii() or " " in value:
        raise Refused("an API key has only visible ASCII characters; write the 'encoded' form Elasticsearch gives")
    return value


def _fingerprint(value: str) -> str:
    """A SHA-256 in hexadecimal; colons and capitals are dropped."""
    digest = value.replace(":", "").lower()
    if value and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Refused("not a SHA-256 fingerprint (64 hexadecimal digits, colons allowed)")
    return digest


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise Refused(f"{value} is not a power of two; the nearest are {below} and {below * 2}")
    return value


def _rotation(value: int) -> int:
    if 0 < value < 4096:
        raise Refused(f"{value} is too small; 0 (off) or at least 4096")
    return value


# --- the declaration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One configuration key. `name` is dotted; `minimum`/`maximum` bound an integer, or the length of a list."""

    name: str
    type: Any
    default: Any
    doc: str
    unit: str = ""
    minimum: int | None = None
    maximum: int | None = None
    allowed: str = ""
    secret: bool = False
    single: bool = False  # a list of one entry may be written as the entry itself
    rule: Rule | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed strings, empty when any will do."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


def _key(default: object, doc: str, **options: Any) -> Any:
    """A field whose metadata are the arguments of its Key; a misspelt option fails at import."""
    return field(default=default, repr=not options.get("secret"), metadata={"doc": doc, **options})


@dataclass(frozen=True)
class EsConfig:
    """Section `es_config`: where and how documents are delivered. Used when `storage_type` is elasticsearch.

    An empty string or None means "not set". `es_host` holds IPv6 addresses without brackets.
    """

    es_host: tuple[str, ...] = _key(
        ("localhost",), "Elasticsearch host, or a list of hosts of one cluster.", minimum=1, maximum=16, single=True,
        allowed="host names, IPv4 or IPv6 addresses, without scheme and port", rule=_host,
    )  # fmt: skip
    es_port: int = _key(9200, "Port, the same on each host.", minimum=1, maximum=65535)
    es_user: str = _key("", "User of HTTP basic authentication.", allowed="no `:`", rule=_user)
    es_password: str = _key("", "Password of `es_user`. Better: `password_file`.", secret=True)
    password_file: Path | None = _key(None, "File that holds the password of `es_user` alone.")
    api_key: str = _key(
        "", "API key in its encoded form, instead of user and password. Better: `api_key_file`.", secret=True,
        allowed="visible ASCII characters", rule=_api_key,
    )  # fmt: skip
    api_key_file: Path | None = _key(None, "File that holds the API key alone.")
    es_index: str = _key(
        "ebpf-events", "Beginning of the index names; the event's own date is appended.",
        allowed='lowercase, at most 200 bytes, none of `\\ / * ? " < > | space , # :`, not beginning with `- _ +`',
        rule=_index,
    )  # fmt: skip
    index_period: IndexPeriod = _key("day", "One index for each day or each hour (UTC).")
    batch_size: int = _key(500, "Documents in one bulk request.", unit="documents", minimum=1, maximum=10_000)
    secure: bool = _key(True, "Use TLS (https).")
    insecure: bool = _key(False, "Do not verify the server's certificate. Anybody on the way can then read and forge.")
    ca_certs: Path | None = _key(None, "PEM file with the certificate authorities to trust, instead of the system's.")
    ca_fingerprint: str = _key(
        "", "SHA-256 fingerprint of the certificate authority to trust.", allowed="64 hexadecimal digits",
        rule=_fingerprint,
    )  # fmt: skip
    profile: ShipProfile = _key("same", "Which of the logged events are delivered; `same`: all that `profile` logs.")


@dataclass(frozen=True)
class Config:
    """The whole configuration, immutable. All sizes in bytes; `profile` trace always has `fold` False."""

    events_dir: Path = _key(Path("/var/monitoring/events"), "Directory of the event log.")
    output_dir: Path = _key(
        Path("/var/monitoring/outputs"), "Directory of reports, exports and the delivery's checkpoint."
    )
    storage_type: StorageType = _key("local", "`local`: only the log; `elasticsearch`: deliver the log as well.")
    es_config: EsConfig = EsConfig()
    profile: Profile = _key(
        "standard", "How much is captured: processes and connections only; all but quiet files; all; all, not folded."
    )
    fold: bool = _key(True, "Sum up repeated reads and writes of one open file. Always off in profile trace.")
    quiet_age_s: int = _key(
        DAY_S, "Age of the last change from which a root-owned file counts as quiet.", unit="seconds",
        minimum=0, maximum=3650 * DAY_S,
    )  # fmt: skip
    sensitive_paths: tuple[Path, ...] = _key(
        tuple(map(Path, ("/etc", "/root", "/boot", "/usr/lib/systemd", "/var/spool/cron"))),
        "Directories and files under which nothing is quiet.", minimum=0, maximum=8, allowed="absolute paths",
    )  # fmt: skip
    args_limit_bytes: int = _key(
        8192, "How much of a program's arguments is recorded.", unit="bytes", minimum=64, maximum=16384
    )
    ring_bytes: int = _key(
        64 * MIB, "Memory for file and socket events, all CPUs together.", unit="bytes", minimum=MIB, maximum=4 * GIB
    )
    control_ring_bytes: int = _key(
        16 * MIB, "Memory for process and other rare events.", unit="bytes", minimum=4096, maximum=GIB,
        allowed="a power of two", rule=_power_of_two,
    )  # fmt: skip
    control_lane: ControlLane = _key("auto", "Kernel buffer for rare events; `auto`: ringbuf where the kernel has it.")
    poll_interval_ms: int = _key(
        4, "Pause between two looks at the rings; five times as long while little happens.", unit="ms", minimum=1, maximum=100,
    )  # fmt: skip
    heartbeat_interval_s: int = _key(60, "Time between two heartbeats.", unit="seconds", minimum=1, maximum=DAY_S)
    fold_interval_s: int = _key(
        60, "Time after which an open file's totals are logged.", unit="seconds", minimum=1, maximum=DAY_S
    )
    commit_bytes: int = _key(
        8 * MIB, "The log is made durable (fdatasync) after so many bytes.", unit="bytes", minimum=1, maximum=GIB
    )
    commit_interval_ms: int = _key(
        1000, "The log is made durable at the latest after this time.", unit="ms", minimum=1, maximum=60_000
    )
    rotate_bytes: int = _key(
        0, "Rotate the log at this size; 0: off, as logrotate does it. Never use both.", unit="bytes",
        minimum=0, maximum=1024 * GIB, allowed="0 or at least 4096", rule=_rotation,
    )  # fmt: skip
    rotate_keep: int = _key(8, "Rotated files to keep, with `rotate_bytes`.", unit="files", minimum=1, maximum=10_000)
    keep_capture: bool = _key(False, "Let the kernel go on recording after a regular stop.")
    run_dir: Path = _key(Path("/run/ebpf-monitor"), "Directory of the lock file and of status.json.")
    pin_dir: Path = _key(Path("/sys/fs/bpf/ebpf-monitor"), "Directory in a BPF file system where capture is pinned.")
    log_level: LogLevel = _key("info", "Least important messages of the monitor itself that are shown.")

    def __post_init__(self) -> None:
        if self.profile == "trace":
            object.__setattr__(self, "fold", False)  # here, so that nobody who reads `fold` can forget it


def _declared(section: type[Config | EsConfig], prefix: str = "") -> Iterable[Key]:
    hints = get_type_hints(section)
    for item in fields(section):
        if hints[item.name] is EsConfig:
            yield from _declared(EsConfig, f"{item.name}.")
        else:
            yield Key(name=prefix + item.name, type=hints[item.name], default=item.default, **item.metadata)


KEYS: tuple[Key, ...] = tuple(_declared(Config))
"""Every key, in the order of the sample; those of the section are named `es_config.NAME`."""

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
            pointless, reason = ("insecure", "ca_certs", "ca_fingerprint"), "es_config.secure is false (no TLS)"
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
