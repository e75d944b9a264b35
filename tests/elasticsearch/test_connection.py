"""The connection against real TLS: what is verified, what is said when it fails, and that nothing was sent then."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitor.config_keys import EsConfig
from monitor.sinks import credentials
from monitor.sinks.credentials import CredentialError, Credentials
from monitor.sinks.elasticsearch import Connection, EsError, NoReply, SetupError, TlsRefused, Unreachable
from tests.elasticsearch.fake import Answer, Fake
from tests.elasticsearch.server import Server, certificate, free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca")


@pytest.fixture
def fakes() -> Iterator[Any]:
    made: list[Fake] = []

    def make(*given: Any, **named: Any) -> Fake:
        made.append(Fake(*given, **named))
        return made[-1]

    yield make
    for fake in made:
        fake.down()


def connect(fake: Fake, ca: Path | None, **changed: Any) -> Connection:
    es = replace(EsConfig(es_host=("localhost",), es_port=fake.port, es_user="u", es_password="secret"), **changed)
    pem = ca.read_text() if ca else ""
    return Connection(es, replace(credentials.read(es), ca_pem=pem), timeout_s=2)


def refused(fake: Fake, ca: Path | None, **changed: Any) -> TlsRefused:
    with pytest.raises(TlsRefused) as caught:
        connect(fake, ca, **changed).perform("POST", "/_bulk", b"{}\n")
    assert fake.received == 0
    assert fake.requests == []
    assert "secret" not in str(caught.value)
    return caught.value


def test_a_verified_connection(authority: Path, fakes: Any) -> None:
    fake = fakes(certificate(authority))
    reply = connect(fake, authority / "ca.pem").perform("GET", "/_x")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"{}", "application/json")


def test_a_foreign_authority(authority: Path, fakes: Any, tmp_path: Path) -> None:
    certificate(tmp_path)
    error = refused(fakes(certificate(authority)), tmp_path / "ca.pem")
    assert error.check == "certificate"
    assert "es_config.ca_certs" in str(error)
    assert refused(fakes(certificate(authority)), None).check == "certificate"  # the system's authorities


def test_an_expired_certificate(authority: Path, fakes: Any) -> None:
    error = refused(fakes(certificate(authority, "old", days=-1)), authority / "ca.pem")
    assert error.check == "expired"
    assert "clock" in str(error)


def test_another_host_name(authority: Path, fakes: Any) -> None:
    error = refused(fakes(certificate(authority, "other", names="DNS:other.example")), authority / "ca.pem")
    assert error.check == "host_name"
    assert "es_host" in str(error)


def test_old_tls(authority: Path, fakes: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, certificate(authority)))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # that they are deprecated is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    error = refused(fakes(context=context), authority / "ca.pem")
    assert error.check == "version"
    assert "1.2" in str(error)


def test_plain_http_on_the_port(authority: Path, fakes: Any) -> None:
    error = refused(fakes(), authority / "ca.pem")
    assert error.check == "not_tls"
    assert "secure" in str(error)


def test_tls_on_the_port_of_plain_http(authority: Path, fakes: Any) -> None:
    with pytest.raises(NoReply) as caught:
        connect(fakes(certificate(authority)), None, secure=False).perform("GET", "/")
    assert "set es_config.secure to true" in str(caught.value)


def test_plain_http_only_to_this_host_unless_said_so() -> None:
    es = EsConfig(es_host=("es.example",), secure=False)
    with pytest.raises(SetupError, match=r"es\.example is not this host"):
        Connection(es, Credentials())
    assert "plain http" in Connection(replace(es, insecure=True), Credentials()).warning
    assert Connection(replace(es, es_host=("localhost", "127.0.0.1", "::1")), Credentials()).warning == ""


def test_no_authority_is_trusted_but_the_configured_one(
    authority: Path, fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the bundle either that the client brings along: here the one that signed the server's certificate is in it."""
    fake = fakes(certificate(authority))
    monkeypatch.setattr("elastic_transport._node._http_urllib3.DEFAULT_CA_CERTS", str(authority / "ca.pem"))
    certificate(tmp_path)
    assert refused(fake, tmp_path / "ca.pem").check == "certificate"
    assert refused(fake, None).check == "certificate"


def test_insecure_verifies_nothing_and_says_so(authority: Path, fakes: Any) -> None:
    fake = fakes(certificate(authority, "other", names="DNS:other.example"))
    connection = connect(fake, None, insecure=True)
    assert connection.perform("GET", "/").status == 200
    assert "NOT verified" in connection.warning
    assert connect(fake, authority / "ca.pem").warning == ""


def test_a_pinned_authority(authority: Path, fakes: Any) -> None:
    node, key = certificate(authority)
    chain = authority / "chain.pem"
    chain.write_text(node.read_text() + (authority / "ca.pem").read_text())
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert((authority / "ca.pem").read_text())).hexdigest()
    fake = fakes((chain, key))
    assert connect(fake, None, ca_fingerprint=digest).perform("GET", "/").status == 200
    fake.requests.clear()
    fake.received = 0
    error = refused(fake, None, ca_fingerprint="0" * 64)
    assert error.check == "fingerprint"
    other = fakes(certificate(authority))  # does not show the authority
    assert refused(other, None, ca_fingerprint=digest).check == "fingerprint"


def test_a_forged_certificate_beside_the_genuine_authority(authority: Path, fakes: Any, tmp_path: Path) -> None:
    certificate(authority)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert((authority / "ca.pem").read_text())).hexdigest()
    node, key = certificate(tmp_path)  # another authority of the same name
    chain = tmp_path / "chain.pem"
    chain.write_text(node.read_text() + (authority / "ca.pem").read_text())
    assert refused(fakes((chain, key)), None, ca_fingerprint=digest).check == "certificate"


def test_a_server_that_is_not_there() -> None:
    es = EsConfig(es_host=("localhost",), es_port=free_port(), secure=False)
    with pytest.raises(Unreachable) as caught:
        Connection(es, Credentials()).perform("GET", "/")
    assert caught.value.check == "connect"
    assert "Connection refused" in str(caught.value)


def test_replies_that_are_none(fakes: Any) -> None:
    fake = fakes()
    connection = connect(fake, None, secure=False)
    for answer, check in (
        (Answer(reset=True), "protocol"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"), "protocol"),
        (Answer(wait_s=1.5), "timeout"),
        (Answer(body=b"x" * 3_000_000), "too_long"),
        (Answer(raw=b"SSH-2.0-OpenSSH\r\n"), "protocol"),
    ):
        fake.fault = lambda _fake, _request, answer=answer: answer
        before = len(fake.requests)
        with pytest.raises(NoReply) as caught:
            patience = 0.5 if answer.wait_s else None
            connection.perform("POST", "/_x", b"{}\n", most_bytes=1_000_000, timeout_s=patience)
        assert caught.value.check == check
        assert len(fake.requests) == before + 1  # sent once


def test_several_hosts_of_which_one_is_dead(fakes: Any) -> None:
    fake = fakes(host="::1")  # nobody listens on 127.0.0.1
    connection = connect(fake, None, secure=False, es_host=("127.0.0.1", "::1"))
    failures: list[str] = []
    for _ in range(20):
        try:
            connection.perform("GET", "/")
        except EsError as error:
            failures.append(error.check)
    assert set(failures) <= {"connect"}
    assert len(failures) <= 2  # the dead one is asked once, and left alone for a while


def test_credentials_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = tmp_path / "word"
    word.write_text("pässword\n")
    word.chmod(0o600)
    es = EsConfig(es_user="ship", password_file=word)
    assert credentials.read(es).authorization == "Basic c2hpcDpww6Rzc3dvcmQ="
    assert "pässword" not in repr(credentials.read(es))
    word.chmod(0o644)
    with pytest.raises(CredentialError, match="chmod o-rwx"):
        credentials.read(es)
    word.chmod(0o600)
    word.write_text("a\nb\n")
    with pytest.raises(CredentialError, match="one line"):
        credentials.read(es)
    with pytest.raises(CredentialError, match="es_user is not set"):
        credentials.read(EsConfig(es_password="x"))
    with pytest.raises(CredentialError, match="no password"):
        credentials.read(EsConfig(es_user="x"))
    with pytest.raises(CredentialError, match="No such file"):
        credentials.read(EsConfig(api_key_file=tmp_path / "none"))
    (tmp_path / "link").symlink_to(word)
    with pytest.raises(CredentialError, match="symbolic link"):
        credentials.read(EsConfig(api_key_file=tmp_path / "link"))
    key = tmp_path / "es_api_key"
    key.write_text("id:key")
    key.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.read(EsConfig()).authorization == "ApiKey aWQ6a2V5"
    with pytest.raises(CredentialError, match="no certificate"):
        credentials.read(EsConfig(ca_certs=key))


@pytest.mark.elasticsearch
def test_the_real_server(elasticsearch: Server) -> None:
    connection = elasticsearch.connection("ship")
    assert connection.perform("GET", "/_cluster/health").status == 200
    wrong = replace(elasticsearch.config("ship"), es_password="wrong")
    assert Connection(wrong, credentials.read(wrong)).perform("GET", "/_cluster/health").status == 401
    plain = replace(elasticsearch.config("ship"), secure=False, ca_certs=None)
    with pytest.raises(NoReply, match=r"set es_config\.secure to true"):
        Connection(plain, credentials.read(plain)).perform("GET", "/")
    digest = subprocess.run(
        ["openssl", "x509", "-in", str(elasticsearch.ca), "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True, check=True
    ).stdout.strip().partition("=")[2].replace(":", "").lower()  # fmt: skip
    pinned = replace(elasticsearch.config("ship"), ca_certs=None, ca_fingerprint=digest)
    assert Connection(pinned, credentials.read(pinned)).perform("GET", "/_cluster/health").status == 200
