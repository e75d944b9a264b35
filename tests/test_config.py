"""What a configuration may be, and what each bad one is told. Needs no root, no bcc and no network."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor import config, config_file
from monitor.config import ConfigError
from monitor.config_keys import KEYS, Config, EsConfig

SECRET = "hunter2-Pa55"
FINGERPRINT = "ab" * 32


class Bad(NamedTuple):
    """One refused file: its bytes, and what the error must say."""

    data: bytes
    line: int | None
    key: str | None
    fragment: str


def raw(text: str | bytes, line: int | None, fragment: str, key: str | None = None) -> Bad:
    return Bad(text.encode() if isinstance(text, str) else text, line, key, fragment)


def top(key: str, value: str, fragment: str, shown: str | None = None) -> Bad:
    """`value` (JSON text) for a key of the whole, on line 3."""
    return Bad(f'{{\n\n"{key}": {value}\n}}'.encode(), 3, shown or key, fragment)


def es(key: str, value: str, fragment: str, shown: str | None = None) -> Bad:
    """`value` (JSON text) for a key of es_config, on line 4."""
    text = f'{{\n "log_level": "info",\n "es_config": {{\n  "{key}": {value}\n }}\n}}'
    return Bad(text.encode(), 4, f"es_config.{shown or key}", fragment)


NOT_TEXT = [
    raw(b"", None, "the file is empty"),
    raw(b" \n\t\r\n", None, "write {} for the defaults"),
    raw(b"\xef\xbb\xbf{}", 1, "UTF-8 byte order mark"),
    raw("{}".encode("utf-16"), 1, "UTF-16 byte order mark"),
    raw(b"\xfe\xff\x00{\x00}", 1, "UTF-16 byte order mark"),
    raw("{}".encode("utf-16-le"), 1, "NUL byte at byte offset 1"),
    raw(b'{\n "profile": "full\x00"}', 2, "NUL byte at byte offset 19"),
    raw(b'{\n\n "run_dir": "/\xff"}', 3, "not UTF-8 text at byte offset 17"),
    raw(b'{"run_dir": "/\xc3', 1, "not UTF-8 text at byte offset 14"),
    raw(b'{"run_dir": "/\xc0\xaf"}', 1, "not UTF-8 text at byte offset 14"),
    raw(b'{"run_dir": "/\xed\xa0\x80"}', 1, "not UTF-8 text at byte offset 14"),
    raw(b"\x7fELF\x02\x01\x01\x00", 1, "NUL byte at byte offset 7"),
    raw(b"\x1f\x8b\x08\x08", 1, "not UTF-8 text at byte offset 1"),
    raw(b" " * (1 << 20) + b"{}", None, "larger than 1048576 bytes"),
]

SYNTAX = [
    raw("{", 1, "expected the name of a key in double quotes, found the end of the file (column 2)"),
    raw("}", 1, "expected a value, found '}' (column 1)"),
    raw("[", 1, "expected a value, found the end of the file"),
    raw('{"profile"}', 1, "expected ':' after the name of the key, found '}'"),
    raw('{"profile" "full"}', 1, "expected ':' after the name of the key, found a string"),
    raw('{"profile":}', 1, "expected a value, found '}' (column 12)", "profile"),
    raw('{"profile":', 1, "expected a value, found the end of the file", "profile"),
    raw('{"profile": "full"', 1, "expected ',' or '}', found the end of the file"),
    raw('{\n"profile": "full"\n"fold": true}', 3, "expected ',' or '}', found a string (column 1)"),
    raw('{"profile": "full",}', 1, "a comma stands before '}'; remove it (column 20)"),
    raw('{"profile": "full",,}', 1, "expected the name of a key in double quotes, found ','"),
    raw('{"sensitive_paths": ["/etc",]}', 1, "a comma stands before ']'; remove it", "sensitive_paths"),
    raw('{"sensitive_paths": [,"/etc"]}', 1, "expected a value, found ','", "sensitive_paths"),
    raw('{"sensitive_paths": ["/etc" "/b"]}', 1, "expected ',' or ']', found a string", "sensitive_paths"),
    raw('{"sensitive_paths": ["/etc"}', 1, "expected ',' or ']', found '}'", "sensitive_paths"),
    raw('{"es_config": {"es_port": 9200}', 1, "expected ',' or '}', found the end of the file"),
    raw('{"es_config": {"es_port": 9200]}', 1, "expected ',' or '}', found ']'", "es_config"),
    raw("{profile: 1}", 1, "expected the name of a key in double quotes, found text without quotes"),
    raw("{'profile': 1}", 1, 'JSON strings stand in "double quotes"'),
    raw("{\u201cprofile\u201d: 1}", 1, "a wrong kind of quote"),
    raw("{1: 2}", 1, "found a number"),
    raw("{\"profile\": 'full'}", 1, "a wrong kind of quote", "profile"),
    raw('{"profile": full}', 1, "strings stand in double quotes", "profile"),
    raw('{"fold": True}', 1, "True is not JSON; write true", "fold"),
    raw('{"fold": FALSE}', 1, "FALSE is not JSON; write false", "fold"),
    raw('{"fold": yes}', 1, "yes is not JSON; write true", "fold"),
    raw('{"fold": off}', 1, "off is not JSON; write false", "fold"),
    raw('{"fold": None}', 1, "None is not JSON; write null", "fold"),
    raw('{"fold": truee}', 1, "text without quotes", "fold"),
    raw('{"fold": tru', 1, "text without quotes", "fold"),
    raw('{"rotate_keep": NaN}', 1, "NaN is not JSON", "rotate_keep"),
    raw('{"rotate_keep": Infinity}', 1, "Infinity is not JSON", "rotate_keep"),
    raw('{"rotate_keep": -Infinity}', 1, "NaN and Infinity are not JSON", "rotate_keep"),
    raw('{"rotate_keep": -}', 1, "'-' must be followed by a digit", "rotate_keep"),
    raw('{"rotate_keep": +8}', 1, "expected a value", "rotate_keep"),
    raw('{"rotate_keep": 08}', 1, "a number must not begin with 0", "rotate_keep"),
    raw('{"rotate_keep": -08}', 1, "a number must not begin with 0", "rotate_keep"),
    raw('{"rotate_keep": 0x8}', 1, "not a JSON number", "rotate_keep"),
    raw('{"rotate_keep": 8.}', 1, "not a JSON number", "rotate_keep"),
    raw('{"rotate_keep": .8}', 1, "expected a value", "rotate_keep"),
    raw('{"rotate_keep": 8e}', 1, "not a JSON number", "rotate_keep"),
    raw('{"ring_bytes": 64MiB}', 1, "without units", "ring_bytes"),
    raw('{"ring_bytes": 64_000_000}', 1, "separators", "ring_bytes"),
    raw('{"ring_bytes": 64 MiB}', 1, "expected ',' or '}', found text without quotes"),
    raw('{"rotate_keep": \u0668}', 1, "expected a value", "rotate_keep"),
    raw('{"ring_bytes": 123456789012345678901}', 1, "an integer of more than 20 digits", "ring_bytes"),
    raw('{"ring_bytes": -%s}' % ("9" * 100_000), 1, "an integer of more than 20 digits", "ring_bytes"),
    raw('{"ring_bytes": 1e400}', 1, "the number is too large", "ring_bytes"),
    raw('{"ring_bytes": 0.%s}' % ("1" * 100_000), 1, "a number of more than 64 characters", "ring_bytes"),
    raw('{\n\n"run_dir": "/run\n}', 3, "its closing double quote is missing (column 12)", "run_dir"),
    raw('{"run_dir": "/run', 1, "its closing double quote is missing", "run_dir"),
    raw('{"run_dir": "/run\\', 1, "a backslash must be followed by one of", "run_dir"),
    raw('{"run_dir": "/a\tb"}', 1, "control character U+0009 in a string", "run_dir"),
    raw('{"run_dir": "C:\\dir"}', 1, "a backslash must be followed by one of", "run_dir"),
    raw('{"run_dir": "/\\x41"}', 1, "a backslash must be followed by one of", "run_dir"),
    raw('{"run_dir": "/\\u00"}', 1, "four hexadecimal digits", "run_dir"),
    raw('{"run_dir": "/\\u+041"}', 1, "four hexadecimal digits", "run_dir"),
    raw('{"run_dir": "/\\ud800"}', 1, "the first half of a surrogate pair", "run_dir"),
    raw('{"run_dir": "/\\ud800\\u0041"}', 1, "the first half of a surrogate pair", "run_dir"),
    raw('{"run_dir": "/\\ud800\\ud800"}', 1, "the first half of a surrogate pair", "run_dir"),
    raw('{"run_dir": "/\\udc00"}', 1, "the second half of a surrogate pair", "run_dir"),
    raw('{"\\udc00": 1}', 1, "the second half of a surrogate pair"),
    raw('{"run_dir": "/%s"}' % ("a" * 20_000), 1, "a string of more than 16384 characters", "run_dir"),
    raw('{"run_dir": "%s"}' % ("\\n" * 400_000), 1, "a string of more than 16384 characters", "run_dir"),
    raw('{"%s": 1}' % ("a" * 20_000), 1, "a string of more than 16384 characters"),
    raw('{\n// a comment\n"fold": true}', 2, "a comment, which JSON does not have"),
    raw('{\n# a comment\n"fold": true}', 2, "a comment, which JSON does not have"),
    raw("/* a comment */ {}", 1, "a comment, which JSON does not have"),
    raw('{"fold":\u00a0true}', 1, "the character U+00A0", "fold"),
    raw('{"fold": true}\n}', 2, "trailing data: expected nothing after the end of the value, found '}'"),
    raw("{} {}", 1, "trailing data"),
    raw('{}\n"x"', 2, "trailing data"),
    raw("{}\x1a", 1, "trailing data"),
    raw("events_dir = /var\n", 1, "text without quotes"),
    raw("---\nevents_dir: /var\n", 1, "'-' must be followed by a digit"),
    raw("[" * 33, 1, "nested deeper than 32 levels"),
    raw("[" * 500_000, 1, "nested deeper than 32 levels"),
    raw('{"a":' * 200_000, 1, "nested deeper than 32 levels", "a"),
    raw("[" + "1," * 500_000 + "1]", 1, "more than 4096 values"),
]

STRUCTURE = [
    raw("[]", 1, "the file must hold one object: expected an object {...}, found a list"),
    raw("\n\n[{}]", 3, "found a list"),
    raw("null", 1, "found null"),
    raw("true", 1, "found true or false"),
    raw('"profile"', 1, "found a string"),
    raw("12", 1, "found an integer"),
    raw("1.5", 1, "found a number with a fraction"),
    raw('{"es_config": []}', 1, "expected an object {...}, found a list", "es_config"),
    raw('{"es_config": null}', 1, "expected an object {...}, found null", "es_config"),
    raw('{"es_config":\n"localhost"}', 2, "expected an object {...}, found a string", "es_config"),
    raw('{"es_config": 9200}', 1, "found an integer", "es_config"),
    raw('{"fold": true,\n"fold": true}', 2, "duplicate key: it stands on line 1 already", "fold"),
    raw('{"fold": true,\n"quiet_age_s": 1,\n\n"f\\u006fld": false}', 4, "it stands on line 1 already", "fold"),
    raw('{"es_config": {},\n"es_config": {}}', 2, "duplicate key", "es_config"),
    raw('{"es_config": {"es_port": 1,\n"es_port":\n1}}', 2, "duplicate key", "es_config.es_port"),
    raw('{"x": {"y": {"z": 1,\n"z": 1}}}', 2, "duplicate key inside it", "x"),
    raw('{"x": [[{"z": 1,\n"z": 1}]]}', 2, "duplicate key inside it", "x"),
    raw('{"": 1, "": 2}', 1, "duplicate key", '""'),
    top("profil", '"full"', "unknown key; did you mean profile?"),
    top("Profile", '"full"', "unknown key; did you mean profile?"),
    top("events-dir", '"/var"', "unknown key; did you mean events_dir?"),
    top("event_dir", '"/var"', "unknown key; did you mean events_dir?"),
    top("storage", '"local"', "unknown key; did you mean storage_type?"),
    top("es_conf", "{}", "unknown key; did you mean es_config?"),
    top("elasticsearch_url", "1", "unknown key"),
    top("qqqq", "1", "unknown key; valid keys here: events_dir, output_dir, storage_type, es_config, profile"),
    top("", "1", "unknown key", '""'),
    top(" profile", "1", "unknown key; did you mean profile?"),
    top("es_host", '"localhost"', "unknown key; it belongs inside es_config"),
    top("batch_size", "1", "unknown key; it belongs inside es_config"),
    top("es_config.es_port", "9200", "unknown key; write es_port inside the object es_config"),
    top("a\\nb", "1", "unknown key", "a\\nb"),
    top("\\u202e", "1", "unknown key", "\\u202e"),
    top("k" * 5000, "1", "unknown key; valid keys here", "k" * 64 + "..."),
    top("//", '"a comment"', "unknown key"),
    es("es_prot", "9200", "unknown key; did you mean es_port?"),
    es("es_pasword", f'"{SECRET}"', "unknown key; did you mean es_password?"),
    es("host", '"localhost"', "unknown key; did you mean es_host?"),
    es("events_dir", '"/var"', "unknown key; it belongs outside es_config"),
    es("es_config", "{}", "unknown key; it belongs outside es_config"),
    es("qqqq", "1", "unknown key; valid keys here: es_host, es_port"),
    raw('{"es_config": {"x":\n {"y": 1}}}', 1, "unknown key", "es_config.x"),
    raw('{"unknown\nkey": 1}', 1, "its closing double quote is missing"),
]

TYPES = [
    top("events_dir", "1", "expected a string, found an integer"),
    top("events_dir", "null", "expected a string, found null"),
    top("events_dir", '["/var"]', "expected a string, found a list"),
    top("output_dir", "true", "expected a string, found true or false"),
    top("run_dir", "{}", "expected a string, found an object"),
    top("pin_dir", "1.5", "expected a string, found a number with a fraction"),
    top("storage_type", "1", "expected one of the strings local, elasticsearch, found an integer"),
    top("profile", "null", "expected one of the strings minimal, standard, full, trace, found null"),
    top("profile", '["full"]', "found a list"),
    top("control_lane", "false", "found true or false"),
    top("log_level", "20", "expected one of the strings debug, info, warning, error, found an integer"),
    top("fold", "1", "expected true or false, found an integer"),
    top("fold", '"true"', "expected true or false, found a string"),
    top("fold", "null", "expected true or false, found null"),
    top("keep_capture", "0", "expected true or false, found an integer"),
    top("quiet_age_s", "true", "expected an integer, found true or false"),
    top("quiet_age_s", '"86400"', "expected an integer, found a string"),
    top("args_limit_bytes", "8192.0", "expected an integer, found a number with a fraction"),
    top("ring_bytes", "6e7", "expected an integer, found a number with a fraction or exponent"),
    top("ring_bytes", '"64 MiB"', "expected an integer, found a string"),
    top("control_ring_bytes", "null", "expected an integer, found null"),
    top("poll_interval_ms", "[4]", "expected an integer, found a list"),
    top("heartbeat_interval_s", "{}", "expected an integer, found an object"),
    top("fold_interval_s", "1.0", "expected an integer, found a number with a fraction"),
    top("commit_bytes", '""', "expected an integer, found a string"),
    top("commit_interval_ms", "false", "expected an integer, found true or false"),
    top("rotate_bytes", "null", "expected an integer, found null"),
    top("rotate_keep", "-0.0", "expected an integer, found a number with a fraction"),
    top("sensitive_paths", '"/etc"', "expected a list of strings, found a string"),
    top("sensitive_paths", "{}", "expected a list of strings, found an object"),
    top("sensitive_paths", "null", "expected a list of strings, found null"),
    top("sensitive_paths", '["/etc", 1]', "expected a string, found an integer", "sensitive_paths[1]"),
    top("sensitive_paths", '[["/etc"]]', "expected a string, found a list", "sensitive_paths[0]"),
    es("es_host", "1", "expected a string or a list of strings, found an integer"),
    es("es_host", "null", "expected a string or a list of strings, found null"),
    es("es_host", '["a", null]', "expected a string, found null", "es_host[1]"),
    es("es_host", '[["a"]]', "expected a string, found a list", "es_host[0]"),
    es("es_port", '"9200"', "expected an integer, found a string"),
    es("es_port", "9200.0", "expected an integer, found a number with a fraction"),
    es("es_port", "true", "expected an integer, found true or false"),
    es("es_user", "null", "expected a string, found null"),
    es("es_password", "1234", "expected a string, found an integer"),
    es("es_password", f'["{SECRET}"]', "expected a string, found a list"),
    es("es_password", f'{{"{SECRET}": 1}}', "expected a string, found an object"),
    es("api_key", f'{{"id": "{SECRET}"}}', "expected a string, found an object"),
    es("password_file", "false", "expected a string, found true or false"),
    es("api_key_file", "1", "expected a string, found an integer"),
    es("ca_certs", '["/a"]', "expected a string, found a list"),
    es("ca_fingerprint", "1", "expected a string, found an integer"),
    es("es_index", "null", "expected a string, found null"),
    es("index_period", "1", "expected one of the strings day, hour, found an integer"),
    es("batch_size", "null", "expected an integer, found null"),
    es("secure", '"false"', "expected true or false, found a string"),
    es("insecure", "1", "expected true or false, found an integer"),
    es("profile", "{}", "expected one of the strings same, minimal, standard, full, trace, found an object"),
]

VALUES = [
    top("events_dir", '""', "expected an absolute path"),
    top("events_dir", '"var/events"', "expected an absolute path, beginning with '/'"),
    top("events_dir", '"./var"', "expected an absolute path"),
    top("events_dir", '"~/events"', "expected an absolute path"),
    top("events_dir", '"/var/../etc"', "must not have '..' in it"),
    top("events_dir", '"/var/.."', "must not have '..' in it"),
    top("events_dir", '"/"', "the root directory is not allowed"),
    top("events_dir", '"//."', "the root directory is not allowed"),
    top("events_dir", '"/a\\u0000b"', "a control character"),
    top("events_dir", '"/a\\nb"', "a control character"),
    top("output_dir", '"/a\\u007f"', "a control character"),
    top("run_dir", f'"/{"a" * 256}"', "255 between two slashes"),
    top("run_dir", f'"/{"ä" * 128}"', "255 between two slashes"),
    top("run_dir", f'"{"/a" * 2048}"', "at most 4095 bytes"),
    top("run_dir", f'"{"/a" * 3000}"', "longer than 4096 bytes"),
    top("pin_dir", '"sys/fs/bpf"', "expected an absolute path"),
    top("storage_type", '"elastic"', '"elastic" is not one of local, elasticsearch; did you mean elasticsearch?'),
    top("storage_type", '"LOCAL"', "did you mean local?"),
    top("storage_type", '""', '"" is not one of local, elasticsearch'),
    top("storage_type", '"file\\nsystem"', '"file\\nsystem" is not one of'),
    top("profile", '"fulll"', '"fulll" is not one of minimal, standard, full, trace; did you mean full?'),
    top("profile", '"same"', "is not one of minimal, standard, full, trace"),
    top("profile", f'"{"x" * 9999}"', f'"{"x" * 40}..." is not one of'),
    top("control_lane", '"ring"', "did you mean ringbuf?"),
    top("log_level", '"warn"', "did you mean warning?"),
    top("log_level", '"INFO"', "did you mean info?"),
    top("quiet_age_s", "-1", "-1 is out of range: 0 to 315360000"),
    top("quiet_age_s", "315360001", "out of range"),
    top("args_limit_bytes", "63", "63 is out of range: 64 to 16384"),
    top("args_limit_bytes", "16385", "16385 is out of range: 64 to 16384"),
    top("ring_bytes", "1048575", "out of range: 1048576 to 4294967296"),
    top("ring_bytes", "99999999999999999999", "99999999999999999999 is out of range"),
    top("control_ring_bytes", "4095", "out of range: 4096 to"),
    top("control_ring_bytes", "2048", "out of range: 4096 to"),
    top("control_ring_bytes", "5000", "5000 is not a power of two; the nearest are 4096 and 8192"),
    top("control_ring_bytes", "16777217", "not a power of two"),
    top("poll_interval_ms", "0", "0 is out of range: 1 to 100"),
    top("poll_interval_ms", "101", "101 is out of range: 1 to 100"),
    top("heartbeat_interval_s", "0", "out of range: 1 to 86400"),
    top("fold_interval_s", "86401", "out of range: 1 to 86400"),
    top("commit_bytes", "0", "out of range: 1 to 1073741824"),
    top("commit_interval_ms", "0", "out of range: 1 to 60000"),
    top("rotate_bytes", "-1", "out of range: 0 to"),
    top("rotate_bytes", "4095", "4095 is too small; 0 (off) or at least 4096"),
    top("rotate_keep", "0", "out of range: 1 to 10000"),
    top("sensitive_paths", json.dumps([f"/{n}" for n in range(9)]), "9 entries; allowed: 0 to 8"),
    top("sensitive_paths", '["/etc", "root"]', "expected an absolute path", "sensitive_paths[1]"),
    top("sensitive_paths", '["/etc", "/a", "/etc/"]', "the same entry as sensitive_paths[0]", "sensitive_paths[2]"),
    top("redact_patterns", '["a("]', "not a regular expression", "redact_patterns[0]"),
    top("redact_patterns", '["b", "a*"]', "it matches nothing at all", "redact_patterns[1]"),
    top("redact", '"off"', "expected true or false"),
    top("tags", '["a", "a"]', "the same entry as tags[0]", "tags[1]"),
    top("tags", '[""]', "a tag has 1 to 128 bytes", "tags[0]"),
    top("tags", '"a"', "expected a list of strings, found a string"),
    top("exclusions", '"a"', "expected a list of objects, found a string"),
    top("labels", '["a"]', "expected an object of strings, found a list"),
    top("labels", '{"a": 1}', "expected a string, found an integer"),
    top("labels", '{"a.b": "c"}', "the name of a label has 1 to 64"),
    top("labels", '{"a": "%s"}' % ("x" * 257), "a label has at most 256 bytes"),
    top(
        "labels",
        "{" + ", ".join(f'"l{n}": ""' for n in range(17)) + "}",
        "17 entries in all files together; allowed: 0 to 16",
    ),
    top("sensitive_paths", '["/"]', "the root directory is not allowed", "sensitive_paths[0]"),
    es("es_host", '""', "not a host name or address"),
    es("es_host", "[]", "0 entries; allowed: 1 to 16"),
    es("es_host", json.dumps([f"h{n}" for n in range(17)]), "17 entries; allowed: 1 to 16"),
    es("es_host", '"https://localhost"', "write only the host, without https://"),
    es("es_host", f'"https://elastic:{SECRET}@es1:9200/"', "write only the host, without https://"),
    es("es_host", f'"elastic:{SECRET}@es1"', "a user belongs in es_config.es_user"),
    es("es_host", '["es1", "http://es2"]', "without https://", "es_host[1]"),
    es("es_host", '["es1", "es2", "es1"]', "the same entry as es_config.es_host[0]", "es_host[2]"),
    es("es_host", '["::1", "[::1]"]', "the same entry as es_config.es_host[0]", "es_host[1]"),
    es("es_host", '"localhost:9200"', "the port belongs in es_config.es_port"),
    es("es_host", '"10.0.0.1:9200"', "the port belongs in es_config.es_port"),
    es("es_host", '"[::1]:9200"', "the port belongs in es_config.es_port"),
    es("es_host", '"es1/path"', "a path is not supported"),
    es("es_host", '"::g"', "not an IPv6 address"),
    es("es_host", '"1:2:3:4:5:6:7:8:9"', "not an IPv6 address"),
    es("es_host", '"[10.0.0.1]"', "not an IPv6 address"),
    es("es_host", '"[::1"', "the port belongs in es_config.es_port"),
    es("es_host", '"fe80::1%"', "not the name of a network interface"),
    es("es_host", '"fe80::1%eth 0"', "not the name of a network interface"),
    es("es_host", '"256.1.1.1"', "not an IPv4 address"),
    es("es_host", '"10.0.1"', "not an IPv4 address"),
    es("es_host", '"es 1"', "not a host name or address"),
    es("es_host", '"-es1"', "not a host name or address"),
    es("es_host", '"es1..local"', "not a host name or address"),
    es("es_host", f'"{"a" * 64}"', "not a host name or address"),
    es("es_host", f'"{"a." * 127}a"', "at most 253 characters"),
    es("es_host", '"münchen.example"', "xn--"),
    es("es_host", '"es1\\r\\nX: y"', "a control character"),
    es("es_port", "0", "0 is out of range: 1 to 65535"),
    es("es_port", "65536", "65536 is out of range: 1 to 65535"),
    es("es_port", "-9200", "-9200 is out of range"),
    es("es_user", '"a:b"', "must not contain ':'"),
    es("es_user", '"a\\nb"', "a control character"),
    es("es_password", f'"{SECRET}\\u0000"', "a control character"),
    es("es_password", f'"{SECRET * 500}"', "longer than 4096 bytes"),
    es("es_password", f'"{SECRET * 5000}"', "more than 16384 characters"),
    es("es_password", SECRET, "text without quotes"),
    es("es_password", f'"{SECRET}"{SECRET}"', "expected ',' or '}', found text without quotes", "")._replace(
        key="es_config"
    ),
    es("api_key", f'"{SECRET} x"', "visible ASCII characters"),
    es("api_key", f'"{SECRET}ä"', "visible ASCII characters"),
    es("password_file", '"secret"', "expected an absolute path"),
    es("api_key_file", '"/run/../key"', "must not have '..' in it"),
    es("ca_certs", '"ca.pem"', "expected an absolute path"),
    es("ca_fingerprint", '"abc"', "not a SHA-256 fingerprint"),
    es("ca_fingerprint", f'"{"g" * 64}"', "not a SHA-256 fingerprint"),
    es("es_index", '""', "must not be empty"),
    es("es_index", '"."', "must not be empty, '.' or '..'"),
    es("es_index", '".."', "must not be empty, '.' or '..'"),
    es("es_index", '"Events"', "must be lowercase"),
    es("es_index", '"äÖ"', "must be lowercase"),
    es("es_index", '"-events"', "must not begin with - _ or +"),
    es("es_index", '"_all"', "must not begin with - _ or +"),
    es("es_index", '"+events"', "must not begin with - _ or +"),
    es("es_index", '"ebpf events"', "must not contain a space"),
    es("es_index", '"ebpf*"', "must not contain '*'"),
    es("es_index", '"<ebpf-{now/d}>"', "must not contain '<'"),
    es("es_index", '"a,b"', "must not contain ','"),
    es("es_index", '"a#b"', "must not contain '#'"),
    es("es_index", '"a:b"', "must not contain ':'"),
    es("es_index", '"a/b"', "must not contain '/'"),
    es("es_index", '"a\\\\b"', "must not contain '\\'"),
    es("es_index", '"a?b"', "must not contain '?'"),
    es("es_index", '"a\\"b"', "must not contain '\"'"),
    es("es_index", '"a>b"', "must not contain '>'"),
    es("es_index", '"a|b"', "must not contain '|'"),
    es("es_index", '"a\\tb"', "a control character"),
    es("es_index", f'"{"a" * 201}"', "at most 200 bytes"),
    es("es_index", f'"{"ä" * 101}"', "at most 200 bytes"),
    es("index_period", '"week"', '"week" is not one of day, hour'),
    es("index_period", '"hours"', "did you mean hour?"),
    es("batch_size", "0", "0 is out of range: 1 to 10000"),
    es("batch_size", "10001", "10001 is out of range: 1 to 10000"),
    es("profile", '"all"', "is not one of same, minimal, standard, full, trace"),
    es("profile", '"minimum"', "did you mean minimal?"),
]


def pair(first: str, second: str, at_fault: str, line: int, fragment: str) -> Bad:
    text = f'{{"es_config": {{\n{first},\n{second}\n}}}}'
    return Bad(text.encode(), line, f"es_config.{at_fault}", fragment)


PASSWORD, API_KEY = f'"es_password": "{SECRET}"', f'"api_key": "{SECRET}"'
CONTRADICTIONS = [
    pair(PASSWORD, API_KEY, "api_key", 3, "only one credential is allowed, and es_password is set as well"),
    pair(API_KEY, PASSWORD, "es_password", 3, "only one credential is allowed, and api_key is set as well"),
    pair(PASSWORD, '"password_file": "/p"', "password_file", 3, "and es_password is set as well"),
    pair(PASSWORD, '"api_key_file": "/p"', "api_key_file", 3, "and es_password is set as well"),
    pair('"password_file": "/p"', '"api_key_file": "/p"', "api_key_file", 3, "and password_file is set as well"),
    pair(API_KEY, '"api_key_file": "/p"', "api_key_file", 3, "and api_key is set as well"),
    pair('"secure": false', '"ca_certs": "/ca.pem"', "ca_certs", 3, "while es_config.secure is false"),
    pair('"insecure": true', '"ca_certs": "/ca.pem"', "ca_certs", 3, "while es_config.insecure is true"),
    pair(f'"ca_fingerprint": "{FINGERPRINT}"', '"insecure": true', "ca_fingerprint", 2, "es_config.insecure is true"),
]

BAD = NOT_TEXT + SYNTAX + STRUCTURE + TYPES + VALUES + CONTRADICTIONS


def refusal(data: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.loads(data, "/etc/x.json")
    return caught.value


def chain(error: BaseException | None) -> str:
    """All that a careless handler could print of an error."""
    text = ""
    while error is not None:
        text += f"{error!s} {error!r} {error.args!r} "
        error = error.__cause__ or error.__context__
    return text


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.data[:40]!r}")
def test_a_bad_configuration_is_refused_with_its_line_key_and_reason(bad: Bad) -> None:
    start = time.process_time()
    error = refusal(bad.data)
    assert time.process_time() - start < 0.5
    assert bad.fragment in error.message
    assert (error.file, error.line, error.key) == ("/etc/x.json", bad.line, bad.key)
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert SECRET not in chain(error)


def test_there_are_at_least_170_different_bad_configurations() -> None:
    assert len({bad.data for bad in BAD}) == len(BAD) >= 170


def test_an_error_is_one_line_with_file_line_key_and_message() -> None:
    error = refusal(b'{\n "es_config": {\n  "es_prot": 9200\n }\n}')
    assert str(error) == "/etc/x.json:3: es_config.es_prot: unknown key; did you mean es_port?"
    assert str(refusal(b"")) == "/etc/x.json: the file is empty; write {} for the defaults"
    assert str(ConfigError("why", file="/a\nb", line=2)) == "/a\\nb:2: why"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_no_key_accepts_a_wrong_type(key: config.Key) -> None:
    section, _, name = key.name.rpartition(".")
    right = type(json.loads(json.dumps(config._plain(key, key.default))))
    for wrong in (None, True, 7, 1.5, "x", ["x"], {"x": 1}):
        if type(wrong) is right or (key.single and isinstance(wrong, list)):
            continue
        member = {name: wrong}
        error = refusal(json.dumps({section: member} if section else member).encode())
        assert "expected" in error.message
        assert error.key == key.name


@pytest.mark.parametrize("key", [key for key in KEYS if key.type is int], ids=lambda key: key.name)
def test_the_bounds_of_each_integer_are_allowed_and_their_neighbours_are_not(key: config.Key) -> None:
    section, _, name = key.name.rpartition(".")
    assert key.minimum is not None
    assert key.maximum is not None

    def text(number: int) -> bytes:
        return json.dumps({section: {name: number}} if section else {name: number}).encode()

    for allowed in (key.minimum, key.maximum):
        loaded = config.loads(text(allowed), "x")
        assert getattr(loaded.es_config if section else loaded, name) == allowed
    for refused in (key.minimum - 1, key.maximum + 1):
        assert "out of range" in refusal(text(refused)).message


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_an_empty_object_and_the_sample_give_the_defaults() -> None:
    assert config.loads(b"{}", "x") == Config()
    assert config.loads(b'{"es_config": {}}', "x") == Config()
    assert config.loads(config.sample().encode(), "x") == Config()


def test_the_sample_names_every_key_once_with_its_default() -> None:
    document = json.loads(config.sample())
    section = document.pop("es_config")
    names = [*document, *(f"es_config.{name}" for name in section)]
    assert sorted(names) == sorted(key.name for key in KEYS)
    assert document["ring_bytes"] == 64 * 1024 * 1024
    assert section["es_port"] == 9200


def test_the_defaults_are_those_of_the_contract() -> None:
    document = json.loads(config.sample())
    assert document == {
        "events_dir": "/var/monitoring/events",
        "output_dir": "/var/monitoring/outputs",
        "storage_type": "local",
        "es_config": {
            "es_host": "localhost",
            "es_port": 9200,
            "es_user": "",
            "es_password": "",
            "password_file": "",
            "api_key": "",
            "api_key_file": "",
            "es_index": "ebpf-events",
            "index_period": "day",
            "batch_size": 500,
            "secure": True,
            "insecure": False,
            "ca_certs": "",
            "ca_fingerprint": "",
            "profile": "same",
        },
        "profile": "standard",
        "fold": True,
        "quiet_age_s": 86400,
        "sensitive_paths": ["/etc", "/root", "/boot", "/usr/lib/systemd", "/var/spool/cron"],
        "hash": True,
        "exec_environment": [],
        "hash_max_bytes": 268435456,
        "redact": True,
        "redact_patterns": [],
        "exclusions": [],
        "args_limit_bytes": 8192,
        "ring_bytes": 67108864,
        "control_ring_bytes": 16777216,
        "control_lane": "auto",
        "poll_interval_ms": 4,
        "heartbeat_interval_s": 60,
        "fold_interval_s": 60,
        "commit_bytes": 8388608,
        "commit_interval_ms": 1000,
        "rotate_bytes": 0,
        "rotate_keep": 8, "log_compression": "none", "log_compression_level": 1,
        "log_min_free": 5,
        "keep_capture": False,
        "ship_user": "",
        "run_dir": "/run/ebpf-monitor",
        "pin_dir": "/sys/fs/bpf/ebpf-monitor",
        "log_level": "info",
        "tags": [],
        "labels": {},
        "locked": False,
    }


def test_every_key_can_be_set() -> None:
    document = {
        "events_dir": "/a/", "output_dir": "//b/./c", "storage_type": "elasticsearch", "profile": "minimal",
        "fold": False,
        "quiet_age_s": 0, "sensitive_paths": [], "args_limit_bytes": 64, "ring_bytes": 1048577,
        "control_ring_bytes": 4096, "control_lane": "perf", "poll_interval_ms": 100, "heartbeat_interval_s": 1,
        "fold_interval_s": 2, "commit_bytes": 3, "commit_interval_ms": 5, "rotate_bytes": 4096, "rotate_keep": 6, "log_min_free": 0,
        "keep_capture": True, "run_dir": "/d", "pin_dir": "/\u00e4", "log_level": "debug",
        "tags": ["dmz"], "labels": {"site": "b", "role": ""}, "locked": True,
    }  # fmt: skip
    section = {
        "es_host": ["es1", "10.0.0.1"], "es_port": 1, "es_user": "elastic", "es_password": "p \u00e4\"\\",
        "es_index": "i",
        "index_period": "hour", "batch_size": 1, "secure": True, "ca_certs": "/ca", "profile": "full",
        "ca_fingerprint": ":".join(["AB"] * 32),
    }  # fmt: skip
    loaded = config.loads(json.dumps({**document, "es_config": section}).encode(), "x")
    es_config = EsConfig(
        es_host=("es1", "10.0.0.1"), es_port=1, es_user="elastic", es_password='p \u00e4"\\', es_index="i",
        index_period="hour", batch_size=1, secure=True, ca_certs=Path("/ca"), profile="full",
        ca_fingerprint=FINGERPRINT,
    )  # fmt: skip
    assert loaded == Config(
        events_dir=Path("/a"), output_dir=Path("/b/c"), storage_type="elasticsearch", es_config=es_config,
        profile="minimal", fold=False, quiet_age_s=0, sensitive_paths=(), args_limit_bytes=64, ring_bytes=1048577,
        control_ring_bytes=4096, control_lane="perf", poll_interval_ms=100, heartbeat_interval_s=1, fold_interval_s=2,
        commit_bytes=3, commit_interval_ms=5, rotate_bytes=4096, rotate_keep=6, log_min_free=0, keep_capture=True, run_dir=Path("/d"),
        pin_dir=Path("/\u00e4"), log_level="debug", tags=("dmz",), labels=(("role", ""), ("site", "b")), locked=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("localhost", ("localhost",)),
        ("es_1.example.org.", ("es_1.example.org.",)),
        ("192.0.2.1", ("192.0.2.1",)),
        ("::1", ("::1",)),
        ("[2001:db8::1]", ("2001:db8::1",)),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
        (["es1", "[::1]", "192.0.2.1"], ("es1", "::1", "192.0.2.1")),
    ],
)
def test_hosts_are_names_or_addresses_without_brackets(written: object, kept: tuple[str, ...]) -> None:
    assert config.loads(json.dumps({"es_config": {"es_host": written}}).encode(), "x").es_config.es_host == kept


@pytest.mark.parametrize("name", ["a", ".hidden", "ebpf-events_1+x", "\u00e4\u00f6", "a" * 200, "1"])
def test_index_names_that_elasticsearch_allows_are_allowed(name: str) -> None:
    assert config.loads(json.dumps({"es_config": {"es_index": name}}).encode(), "x").es_config.es_index == name


def test_strings_are_unescaped_and_surrogate_pairs_joined() -> None:
    text = rb'{"es_config": {"es_password": "\u0041\"\\\/\ud83d\ude00\u00e4"}}'
    assert config.loads(text, "x").es_config.es_password == 'A"\\/\U0001f600\u00e4'


def test_profile_trace_turns_folding_off() -> None:
    assert config.loads(b'{"profile": "trace", "fold": true}', "x").fold is False
    assert Config(profile="trace").fold is False
    assert Config(profile="full").fold is True


def test_a_configuration_is_immutable_and_hashable() -> None:
    assert hash(Config()) == hash(config.loads(b"{}", "x"))
    with pytest.raises(AttributeError):
        Config().profile = "full"  # type: ignore[misc]


# --- derived texts ----------------------------------------------------------------------------------------------------


def test_the_reference_has_one_row_for_every_key() -> None:
    rows = config.reference().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [key.name for key in KEYS]
    for row, key in zip(rows, KEYS, strict=True):
        assert row.replace("\\|", "").count("|") == 8
        assert key.doc in row
        assert all(choice in row for choice in key.choices)
        assert str(key.maximum or "") in row


def test_every_key_is_documented_and_every_number_bounded() -> None:
    for key in KEYS:
        assert key.doc.endswith((".", "shown."))
        if key.type is int:
            assert key.minimum is not None
            assert key.maximum is not None


def test_secrets_are_shown_in_no_text_of_a_configuration() -> None:
    text = json.dumps({"es_config": {"es_user": "elastic", "es_password": SECRET}})
    loaded = config.loads(text.encode(), "x")
    assert loaded.es_config.es_password == SECRET
    for shown in (str(loaded), repr(loaded), repr(loaded.es_config), f"{loaded}", json.dumps(config.effective(loaded))):
        assert SECRET not in shown
    assert config.effective(loaded)["es_config"]["es_password"] == "***"
    assert config.effective(loaded)["es_config"]["api_key"] == "(not set)"


def test_the_effective_configuration_has_the_form_of_the_file() -> None:
    shown = config.effective(Config(es_config=EsConfig(es_host=("a", "b"), ca_certs=Path("/ca"))))
    assert shown["es_config"]["es_host"] == ["a", "b"]
    assert shown["es_config"]["ca_certs"] == "/ca"
    assert shown["es_config"]["es_user"] == ""
    assert list(shown) == list(json.loads(config.sample()))


def where_secrets_go_wrong() -> list[str]:
    quoted = f'"{SECRET}"'
    return [
        f"[{quoted}]",
        f"{{{quoted}: 1}}",
        f"{{{quoted}: 1, {quoted}: 2}}",
        f'{{"a": {{{quoted}: 1, {quoted}: 2}}}}',
        f"{{{quoted}: nope}}",
        f"[{{{quoted}: [}}]",
        f"[[{quoted}, {quoted}]",
        SECRET,
        f"'{SECRET}'",
        f"7{SECRET}",
        f"-{SECRET}",
        f'"{SECRET}',
        f'"{SECRET}\\q"',
        f'"{SECRET}\\ud800"',
        f'"{SECRET}\\u0000"',
        f"{quoted}{quoted}",
        f'"a"{SECRET}"',
        f'"{SECRET}\t"',
        f'"{SECRET}\n"',
        f'"{SECRET * 400}"',
        f'"{SECRET * 4000}"',
        f"{quoted} {SECRET}",
        f"{quoted}: 1",
        f"{quoted}, {quoted}",
        f"true{SECRET}",
        f"#{SECRET}",
        f"{quoted} // {SECRET}",
        f'"{SECRET} \u00e4"\x00',
    ]


@pytest.mark.parametrize("key", ["es_password", "api_key", "es_pasword", "password", "es_user_", "apikey"])
@pytest.mark.parametrize("section", [True, False])
@pytest.mark.parametrize("value", where_secrets_go_wrong())
def test_no_error_repeats_a_secret_however_it_is_miswritten(key: str, section: bool, value: str) -> None:
    inner = f'{{"{key}": {value}}}'
    error = refusal((f'{{"es_config": {inner}}}' if section else inner).encode())
    assert SECRET not in chain(error)


def test_a_latin_1_secret_is_not_in_the_error_nor_in_its_cause() -> None:
    error = refusal(b'{"es_config": {"es_password": "%s\xe4"}}' % SECRET.encode())
    assert "not UTF-8 text at byte offset 43" in error.message
    assert SECRET not in chain(error)


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: Path, text: str = "{}", mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def load_refusal(path: Path) -> ConfigError:
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert time.monotonic() - start < 5  # a FIFO without O_NONBLOCK would hang for ever
    assert caught.value.file == str(path)
    return caught.value


def test_a_file_is_loaded_and_errors_name_it(tmp_path: Path) -> None:
    assert config.load(write(tmp_path / "a.json", '{"profile": "full"}')).profile == "full"
    path = write(tmp_path / "b.json", '{\n"profil": 1}')
    assert str(load_refusal(path)) == f"{path}:2: profil: unknown key; did you mean profile?"


def test_a_symbolic_link_to_a_good_file_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"profile": "full"}')
    (tmp_path / "link.json").symlink_to("a.json")
    assert config.load(tmp_path / "link.json").profile == "full"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert load_refusal(tmp_path / "none.json").message == "no such file"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "a symbolic link to nothing" in load_refusal(tmp_path / "dangling").message
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in load_refusal(tmp_path / "loop").message
    assert "cannot be read" in load_refusal(write(tmp_path / "file") / "below").message
    assert "cannot be read" in load_refusal(tmp_path / ("n" * 300)).message
    assert "not a possible file name" in load_refusal(Path("/a\0b")).message


def test_what_is_not_a_regular_file_is_refused_without_hanging(tmp_path: Path) -> None:
    assert "is a directory, not a regular file" in load_refusal(tmp_path).message
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "is a FIFO" in load_refusal(tmp_path / "fifo").message
    (tmp_path / "link").symlink_to("fifo")
    assert "is a FIFO" in load_refusal(tmp_path / "link").message
    assert "is a character device" in load_refusal(Path("/dev/zero")).message
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        assert "is a socket" in load_refusal(tmp_path / "socket").message


def test_a_file_exchanged_for_a_fifo_between_check_and_open_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = os.stat(write(tmp_path / "regular"))
    os.mkfifo(tmp_path / "fifo", 0o600)
    with monkeypatch.context() as patch:
        stat = os.stat
        patch.setattr("monitor.config_file.os.stat", lambda path: regular if path.name == "fifo" else stat(path))
        error = load_refusal(tmp_path / "fifo")
    assert "is a FIFO" in error.message


def test_a_file_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    assert config.load(write(tmp_path / "full.json", "{}" + " " * ((1 << 20) - 2))) == Config()
    assert "larger than 1048576 bytes" in load_refusal(write(tmp_path / "big.json", "{}" + " " * (1 << 20))).message
    sparse = write(tmp_path / "sparse.json")
    os.truncate(sparse, 1 << 40)
    assert "larger than 1048576 bytes" in load_refusal(sparse).message


@pytest.mark.parametrize(
    ("mode", "who"), [(0o660, "its group"), (0o602, "others"), (0o666, "others"), (0o620, "group")]
)
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int, who: str) -> None:
    path = write(tmp_path / "a.json", "{}", mode)
    error = load_refusal(path)
    assert who in error.message
    assert f"chmod go-w {path}" in error.message


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr("monitor.config_file.os.geteuid", lambda: 12345)
    assert f"chown root {path}" in load_refusal(path).message


def test_a_file_of_the_current_user_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        monkeypatch.setattr("monitor.config_file.os.geteuid", lambda: 12345)
    assert config.load(path) == Config()


@pytest.mark.parametrize("key", [key for key in KEYS if key.secret], ids=lambda key: key.name)
def test_a_secret_in_a_file_that_others_can_read_is_refused(tmp_path: Path, key: config.Key) -> None:
    name = key.name.removeprefix("es_config.")
    text = f'{{"es_config":\n{{"{name}": "{SECRET}"}}}}'
    error = load_refusal(write(tmp_path / "open.json", text, 0o644))
    assert f"chmod o-r {tmp_path / 'open.json'}" in error.message
    assert (error.line, error.key) == (2, key.name)
    assert SECRET not in chain(error)
    assert getattr(config.load(write(tmp_path / "closed.json", text, 0o640)).es_config, name) == SECRET


def test_a_file_without_a_secret_may_be_read_by_everybody(tmp_path: Path) -> None:
    assert config.load(write(tmp_path / "a.json", config.sample(), 0o644)) == Config()


@pytest.mark.parametrize(("number", "words"), [(13, "this user may not read it"), (5, "cannot be read: Input/output")])
def test_a_file_that_cannot_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    path = write(tmp_path / "a.json")
    with monkeypatch.context() as patch:
        patch.setattr("monitor.config_file.os.open", fail)
        error = load_refusal(path)
    assert words in error.message


def test_find_prefers_the_explicit_path_then_the_first_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    monkeypatch.setattr(config, "DEFAULT_PATHS", (first, second))
    assert config.find(None) is None
    write(second)
    assert config.find(None) == second
    first.symlink_to("nowhere")  # broken, but there: it must not be passed over in silence
    assert config.find(None) == first
    assert config.find(second) == second


def test_find_refuses_an_explicit_path_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", write(tmp_path / "file") / "below"):
        with pytest.raises(ConfigError, match="no such file") as caught:
            config.find(path)
        assert caught.value.file == str(path)


def test_the_default_paths_are_those_of_the_contract() -> None:
    assert [str(path) for path in config.DEFAULT_PATHS] == ["/var/config.json", "/etc/ebpf-monitor/config.json"]


# --- any input at all -------------------------------------------------------------------------------------------------


def outcome(read: Callable[[], object]) -> object:
    """What `read` returns, or the ConfigError it raises; any other exception is the test's failure."""
    try:
        return read()
    except ConfigError as error:
        return error


def check(data: bytes) -> None:
    result = outcome(lambda: config.loads(data, "x"))
    if isinstance(result, ConfigError):
        assert str(result).isprintable()
        assert result.line is None or 1 <= result.line <= data.count(b"\n") + 1
    else:
        assert isinstance(result, Config)
        assert json.loads(json.dumps(config.effective(result))) == config.effective(result)


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b'{"\xff')
def test_arbitrary_bytes_raise_nothing_but_config_errors(data: bytes) -> None:
    check(data)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='{}[]:,"\\ue0123.-+tfn \n\ud7ff', max_size=40))
def test_arbitrary_json_like_text_is_read_or_refused_as_the_standard_library_does(text: str) -> None:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def plain(node: config_file.Node) -> Any:
        if isinstance(node.value, dict):
            return {name: plain(child) for name, child in node.value.items()}
        return [plain(child) for child in node.value] if isinstance(node.value, list) else node.value

    try:
        expected = json.loads(text, object_pairs_hook=no_duplicates)
    except ValueError:
        with pytest.raises(ConfigError):
            config_file.parse(text.encode(), "x")
        return
    result = outcome(lambda: config_file.parse(text.encode(), "x"))
    if isinstance(result, ConfigError):  # the only things Python reads and we refuse
        assert any(word in result.message for word in ("surrogate", "too large", "digits"))
    else:
        assert isinstance(result, config_file.Node)
        assert plain(result) == expected


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_configurations_raise_nothing_but_config_errors(data: st.DataObject) -> None:
    content = bytearray(config.sample().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        content[start:end] = data.draw(
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b'"', b"{", b"]", b"1e9", b"null", b"\\u0000", b"-", b"\n"])
            )
        )
    check(bytes(content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), JSON)
def test_any_value_for_any_key_is_accepted_or_a_config_error(key: config.Key, value: object) -> None:
    section, _, name = key.name.rpartition(".")
    document = {section: {name: value}} if section else {name: value}
    check(json.dumps(document, ensure_ascii=True).encode())
