"""What proves to Elasticsearch who we are, and whom we trust: from the configuration, its files, or systemd's credentials.

Owns the reading of those files and what makes one unfit; never sends anything, and never shows a secret in a repr or an error.
"""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from monitor.config_keys import EsConfig

_MOST_BYTES = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class CredentialError(Exception):
    """A credential or a certificate file cannot be used; the text names the key and the file, never the content."""


@dataclass(frozen=True)
class Credentials:
    """What is sent as authorization, and the certificate authorities (PEM) to trust: "" for the system's own."""

    authorization: str = field(default="", repr=False)
    source: str = "none"
    ca_pem: str = field(default="", repr=False)


def read(es: EsConfig) -> Credentials:
    """The credentials that hold now: the configuration's own, else its files', else systemd's. Raises CredentialError.

    systemd's (LoadCredential=) are `es_api_key` and `es_password` in $CREDENTIALS_DIRECTORY.
    """
    ca_pem = ""
    if es.ca_certs is not None:
        ca_pem = _content(es.ca_certs, "ca_certs", secret=False)
        if "-----BEGIN CERTIFICATE-----" not in ca_pem:
            raise CredentialError(f"es_config.ca_certs: {es.ca_certs} holds no certificate in PEM form")
    found = [(es.api_key, "api_key"), (es.es_password, "es_password")]
    for path, key in ((es.api_key_file, "api_key_file"), (es.password_file, "password_file")):
        if path is not None:
            found.append((_secret(path, key), key))
    if not any(secret for secret, _ in found):
        found += _from_systemd()
    secret, source = next(((secret, source) for secret, source in found if secret), ("", "none"))
    if not secret:
        if es.es_user:
            raise CredentialError(
                "es_config.es_user is set, but no password: set password_file (or es_password, or systemd's es_password)"
            )
        return Credentials("", "none", ca_pem)
    if "api_key" in source:
        return Credentials(f"ApiKey {_encoded_key(secret, source)}", source, ca_pem)
    if not es.es_user:
        raise CredentialError(f"es_config.{source} is a password, but es_config.es_user is not set")
    pair = base64.b64encode(f"{es.es_user}:{secret}".encode()).decode()
    return Credentials(f"Basic {pair}", source, ca_pem)


def _encoded_key(secret: str, source: str) -> str:
    """The encoded form of an API key; `id:key` is encoded here."""
    if ":" in secret:
        return base64.b64encode(secret.encode()).decode()
    if not secret.isascii() or any(character.isspace() for character in secret):
        raise CredentialError(f"es_config.{source}: an API key has only visible ASCII characters")
    return secret


def _from_systemd() -> list[tuple[str, str]]:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    names = ("es_api_key", "es_password")
    if not directory:
        return []
    there = [name for name in names if os.path.lexists(Path(directory) / name)]
    return [(_secret(Path(directory) / name, name, of_systemd=True), name.removeprefix("es_")) for name in there]


def _secret(path: Path, key: str, *, of_systemd: bool = False) -> str:
    found = _content(path, key, secret=not of_systemd).rstrip("\r\n")
    if not found:
        raise CredentialError(f"es_config.{key}: {path} is empty")
    if "\n" in found or "\0" in found:
        raise CredentialError(f"es_config.{key}: {path} must hold one line, the secret alone")
    return found


def _content(path: Path, key: str, *, secret: bool) -> str:
    """A small text file that nobody else can change (and, for a secret, read)."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        reason = "is a symbolic link; name the file itself" if path.is_symlink() else f"{error.strerror}"
        raise CredentialError(f"es_config.{key}: cannot read {path}: {reason}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise CredentialError(f"es_config.{key}: {path} is not a regular file")
        if about.st_uid not in (0, os.geteuid()):
            raise CredentialError(f"es_config.{key}: {path} belongs to another user (uid {about.st_uid})")
        if secret and about.st_mode & 0o007:
            raise CredentialError(f"es_config.{key}: others can read {path}; take that away: chmod o-rwx {path}")
        if about.st_mode & 0o002:
            raise CredentialError(f"es_config.{key}: others can write {path}; take that away: chmod o-w {path}")
        data = os.read(descriptor, _MOST_BYTES)
    except OSError as error:
        raise CredentialError(f"es_config.{key}: cannot read {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CredentialError(f"es_config.{key}: {path} is not UTF-8 text") from None
