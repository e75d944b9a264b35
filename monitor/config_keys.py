"""Every configuration key, declared once: type, default, unit, bounds, documentation.

Knows no file: monitor/config.py reads one.
"""

# ruff: noqa: RUF009 - _key() is dataclasses.field(): a declaration, not a default shared by mistake
from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from monitor.config_exclusions import Exclusion
from monitor.config_file import Refused

MIB = 1 << 20
GIB = 1 << 30
DAY_S = 86_400

StorageType = Literal["local", "elasticsearch"]
Profile = Literal["minimal", "standard", "full", "trace"]
ShipProfile = Literal["same", "minimal", "standard", "full", "trace"]
ControlLane = Literal["auto", "ringbuf", "perf"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogCompression = Literal["none", "zstd"]
IndexPeriod = Literal["day", "hour"]
Labels = tuple[tuple[str, str], ...]
"""An object of strings, as pairs in the order of their names."""
Exclusions = tuple[Exclusion, ...]
"""A list of objects."""
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


def _pattern(value: str) -> str:
    try:
        found = re.compile(value.encode())
    except re.error as error:
        raise Refused(f"not a regular expression: {error}") from None
    if found.match(b""):
        raise Refused("it matches nothing at all, and so everywhere")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,14}", value):
        raise Refused("not the name of an environment variable, at most 15 letters, digits and underscores")
    return value


def _tag(value: str) -> str:
    if not value or len(value.encode()) > 128:
        raise Refused("a tag has 1 to 128 bytes")
    return value


def _label(value: str) -> str:
    if len(value.encode()) > 256:
        raise Refused("a label has at most 256 bytes")
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
    live: bool = False  # a running monitor takes a change of it; else the change waits for a restart
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
        allowed="host names, IPv4 or IPv6 addresses, without scheme and port", rule=_host, live=True,
    )  # fmt: skip
    es_port: int = _key(9200, "Port, the same on each host.", minimum=1, maximum=65535, live=True)
    es_user: str = _key("", "User of HTTP basic authentication.", allowed="no `:`", rule=_user, live=True)
    es_password: str = _key("", "Password of `es_user`. Better: `password_file`.", secret=True, live=True)
    password_file: Path | None = _key(None, "File that holds the password of `es_user` alone.", live=True)
    api_key: str = _key(
        "", "API key in its encoded form, instead of user and password. Better: `api_key_file`.", secret=True,
        allowed="visible ASCII characters", rule=_api_key, live=True,
    )  # fmt: skip
    api_key_file: Path | None = _key(None, "File that holds the API key alone.", live=True)
    es_index: str = _key(
        "ebpf-events", "Beginning of the index names; the event's own date is appended.",
        allowed='lowercase, at most 200 bytes, none of `\\ / * ? " < > | space , # :`, not beginning with `- _ +`',
        rule=_index,
    )  # fmt: skip
    index_period: IndexPeriod = _key("day", "One index for each day or each hour (UTC).")
    batch_size: int = _key(
        500, "Documents in one bulk request.", unit="documents", minimum=1, maximum=10_000, live=True
    )
    secure: bool = _key(True, "Use TLS (https).", live=True)
    insecure: bool = _key(
        False,
        "Do not verify the server's certificate; with `secure` false, allow plain http to other hosts. Anybody on the way can "
        "then read and forge.",
        live=True,
    )
    ca_certs: Path | None = _key(
        None, "PEM file with the certificate authorities to trust, instead of the system's.", live=True
    )
    ca_fingerprint: str = _key(
        "", "SHA-256 fingerprint of the certificate authority to trust.", allowed="64 hexadecimal digits",
        rule=_fingerprint, live=True,
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
        "standard", "How much is captured: processes and connections only; all but quiet files; all; all, not folded.",
        live=True,
    )  # fmt: skip
    fold: bool = _key(
        True, "Sum up repeated reads and writes of one open file. Always off in profile trace.", live=True
    )
    quiet_age_s: int = _key(
        DAY_S, "Age of the last change from which a root-owned file counts as quiet.", unit="seconds",
        minimum=0, maximum=3650 * DAY_S, live=True,
    )  # fmt: skip
    sensitive_paths: tuple[Path, ...] = _key(
        tuple(map(Path, ("/etc", "/root", "/boot", "/usr/lib/systemd", "/var/spool/cron"))),
        "Directories and files under which nothing is quiet.", minimum=0, maximum=8, allowed="absolute paths", live=True,
    )  # fmt: skip
    exclusions: Exclusions = _key(
        (), "Own rules for opens, reads and writes of files that are left out, whatever `profile` says: see below.",
        minimum=0, maximum=8, allowed="objects with the members below", live=True,
    )  # fmt: skip
    args_limit_bytes: int = _key(
        8192,
        "How much of a program's arguments is recorded.",
        unit="bytes",
        minimum=64,
        maximum=16384,
        live=True,
    )
    hash: bool = _key(
        True, "SHA-256 of executables, read off the hot path; off: no file is ever opened for it.", live=True
    )
    hash_max_bytes: int = _key(
        256 * MIB, "Larger executables get no hash.", unit="bytes", minimum=1, maximum=64 * GIB, live=True
    )
    exec_environment: tuple[str, ...] = _key(
        (), "Environment variables that an exec tells (`process.env_vars`), such as LD_PRELOAD: looked for among its first 64. "
        "Their values stand in the log as they are.",
        minimum=0, maximum=4, allowed="names of at most 15 letters", rule=_variable, live=True,
    )  # fmt: skip
    redact: bool = _key(
        True, "Mask secrets in arguments before anything is written: log, `ebpf.raw` and recordings.", live=True
    )
    redact_patterns: tuple[str, ...] = _key(
        (), "Own regular expressions for secrets in arguments: group 1 is masked, without a group the whole match.",
        minimum=0, maximum=64, allowed="Python regular expressions that do not match nothing", rule=_pattern,
        live=True,
    )  # fmt: skip
    ring_bytes: int = _key(
        64 * MIB, "Memory for file and socket events, all CPUs together.", unit="bytes", minimum=MIB, maximum=4 * GIB
    )
    control_ring_bytes: int = _key(
        16 * MIB, "Memory for process and other rare events.", unit="bytes", minimum=4096, maximum=GIB,
        allowed="a power of two", rule=_power_of_two,
    )  # fmt: skip
    control_lane: ControlLane = _key("auto", "Kernel buffer for rare events; `auto`: ringbuf where the kernel has it.")
    poll_interval_ms: int = _key(
        4, "Pause between two looks at the rings; up to 100 ms while little happens.", unit="ms", minimum=1,
        maximum=100, live=True,
    )  # fmt: skip
    heartbeat_interval_s: int = _key(
        60, "Time between two heartbeats.", unit="seconds", minimum=1, maximum=DAY_S, live=True
    )
    fold_interval_s: int = _key(
        60,
        "Time after which an open file's totals are logged.",
        unit="seconds",
        minimum=1,
        maximum=DAY_S,
        live=True,
    )
    commit_bytes: int = _key(
        8 * MIB,
        "The log is made durable (fdatasync) after so many bytes.",
        unit="bytes",
        minimum=1,
        maximum=GIB,
        live=True,
    )
    commit_interval_ms: int = _key(
        1000,
        "The log is made durable at the latest after this time.",
        unit="ms",
        minimum=1,
        maximum=60_000,
        live=True,
    )
    rotate_bytes: int = _key(
        0, "Rotate the log at this size; 0: off, as logrotate does it. Never use both.", unit="bytes",
        minimum=0, maximum=1024 * GIB, allowed="0 or at least 4096", rule=_rotation, live=True,
    )  # fmt: skip
    rotate_keep: int = _key(
        8, "Rotated files to keep, with `rotate_bytes`.", unit="files", minimum=1, maximum=10_000, live=True
    )
    log_compression: LogCompression = _key(
        "none", "`zstd`: the log is events.jsonl.zst, which all commands read as they read events.jsonl (and `zstdcat` does).",
    )  # fmt: skip
    log_compression_level: int = _key(
        1, "zstd's level. 1: by an encoder of our own, which is told what repeats, the fastest; 2 takes more than twice as long "
        "for two thirds of the bytes.", minimum=1, maximum=19,
    )  # fmt: skip
    log_min_free: int = _key(
        5, "Below so much free space on the log's file system rotated files are removed, shipped ones first; 0: never.",
        unit="percent", minimum=0, maximum=90, live=True,
    )  # fmt: skip
    keep_capture: bool = _key(False, "Let the kernel go on recording after a regular stop.", live=True)
    ship_user: str = _key(
        "", "User that the shipper's process of `run` becomes; empty: `ebpf-monitor` where there is one, else a free number.",
        allowed="a user name", rule=_user,
    )  # fmt: skip
    run_dir: Path = _key(Path("/run/ebpf-monitor"), "Directory of the lock file and of status.json.")
    pin_dir: Path = _key(Path("/sys/fs/bpf/ebpf-monitor"), "Directory in a BPF file system where capture is pinned.")
    log_level: LogLevel = _key("info", "Least important messages of monitor and shipper that are shown.", live=True)

    tags: tuple[str, ...] = _key(
        (), "ECS `tags` of every document.", minimum=0, maximum=16, allowed="each 1 to 128 bytes", live=True, rule=_tag,
    )  # fmt: skip
    labels: Labels = _key(
        (), "ECS `labels` of every document: an object of strings.", minimum=0, maximum=16, live=True, rule=_label,
        allowed="names of 1 to 64 letters, digits, `_` and `-`; values of at most 256 bytes",
    )  # fmt: skip
    locked: bool = _key(False, "Take no change of the configuration until the next start.", live=True)

    @property
    def log_name(self) -> str:
        """Name of the file that is appended to, in `events_dir`."""
        return "events.jsonl.zst" if self.log_compression == "zstd" else "events.jsonl"

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
