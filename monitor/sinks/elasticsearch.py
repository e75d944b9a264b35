"""One connection to an Elasticsearch cluster over the official client's transport: a request goes out once, never again.

Owns TLS, the choice of the host, and the sentence for each way in which a request can fail; never retries, and never
judges what a reply means. The only importer of the client.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from elasticsearch import Elasticsearch
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as TransportSslError

from monitor.config_keys import EsConfig
from monitor.sinks.credentials import Credentials

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
MOST_REPLY_BYTES = 16 << 20
_PIECE = 1 << 16
_V8 = "application/vnd.elasticsearch+{}; compatible-with=8"
JSON, NDJSON = _V8.format("json"), _V8.format("x-ndjson")


class EsError(Exception):
    """A request failed. `check` is a word for what failed; the text is a sentence with the fix."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


class SetupError(EsError):
    """The connection as configured must not or cannot be made. Nothing was sent."""


class Unreachable(EsError):
    """No usable connection came about (refused, no such host, timeout). Nothing was sent."""


class TlsRefused(EsError):
    """TLS was not established: `check` is certificate, expired, host_name, version, not_tls or handshake. Nothing was sent."""


class NoReply(EsError):
    """The request went out, at least in part, and no whole reply came: it may have been carried out."""


@dataclass(frozen=True)
class Reply:
    """What the server answered: status, headers with lower-case names, the body's bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_loopback(host: str) -> bool:
    """Whether a configured host can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Connection:
    """Requests to the hosts of one cluster, round robin over those that answer. Methods may be called by several threads.

    Raises SetupError (also later, when a pinned authority is first looked for: TlsRefused or Unreachable).
    """

    def __init__(
        self, es: EsConfig, credentials: Credentials, *, parallel: int = 2, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        plain = [host for host in es.es_host if not is_loopback(host)]
        if not es.secure and plain and not es.insecure:
            raise SetupError(
                "plain_http",
                f"es_config.secure is false, and {plain[0]} is not this host: password and events would go out readable. "
                "Set secure to true, or es_config.insecure to true if you want just that",
            )
        self._es = es
        self._credentials = credentials
        self._parallel = parallel
        self._timeout_s = timeout_s
        self._client: Elasticsearch | None = None
        if not es.ca_fingerprint:  # else the authority is looked for at the first request
            self._client = self._open(self._context(credentials.ca_pem) if es.secure else None)

    @property
    def warning(self) -> str:
        """What must be said at each start; "" when all is verified."""
        if not self._es.insecure:
            return ""
        if self._es.secure:
            return "es_config.insecure: the server's certificate is NOT verified; anybody on the way can read and forge"
        return "es_config.insecure: plain http; anybody on the way can read and forge"

    def perform(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        most_bytes: int = MOST_REPLY_BYTES,
        timeout_s: float | None = None,
    ) -> Reply:
        """One request, sent once. `path` begins with a slash and is percent-encoded. Any HTTP status is a Reply.

        `timeout_s`: how long the server may be silent, instead of the connection's own.

        Content type and accept are JSON of the client's version unless given. Raises EsError.
        """
        if self._client is None:
            self._client = self._open(self._context(_pinned_authority(self._es)))
        nodes = self._client.transport.node_pool
        node = nodes.get()
        sent = {"accept": JSON, "user-agent": "ebpf-monitor", "connection": "keep-alive"}
        if body is not None:
            sent["content-type"] = JSON
        if self._credentials.authorization:
            sent["authorization"] = self._credentials.authorization
        pool: Any = node.pool  # type: ignore[attr-defined]
        try:
            reply = self._exchange(
                pool, method, path, body, sent | dict(headers or {}), most_bytes, timeout_s or self._timeout_s
            )
        except EsError:
            if len(self._es.es_host) > 1:
                nodes.mark_dead(node)
            raise
        if reply.status in (502, 503, 504) and len(self._es.es_host) > 1:
            nodes.mark_dead(node)
        else:
            nodes.mark_live(node)
        return reply

    def close(self) -> None:
        """Closes what is open. No request may be made any more."""
        if self._client is not None:
            self._client.close()

    def _context(self, ca_pem: str) -> ssl.SSLContext:
        if self._es.insecure:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # `warning` is told at each start
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            try:
                context = ssl.create_default_context(cadata=ca_pem or None)
            except (ssl.SSLError, ValueError):
                raise SetupError(
                    "ca_certs", f"es_config.ca_certs: {self._es.ca_certs} holds a certificate that cannot be read"
                ) from None
            if self._es.ca_fingerprint:
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is pinned need not be self-signed
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _open(self, context: ssl.SSLContext | None) -> Elasticsearch:
        scheme = "https" if self._es.secure else "http"
        tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        client = Elasticsearch(
            [{"scheme": scheme, "host": host, "port": self._es.es_port} for host in self._es.es_host],
            connections_per_node=self._parallel,
            max_retries=0,
            retry_on_timeout=False,
            http_compress=False,
            **tls,
        )
        for node in client.transport.node_pool.all():
            if context is not None:
                # TLS is what the context says. The client would load certifi's authorities into it, beside the one that is
                # configured, and set it to verify also where nothing is to be verified.
                pool: Any = node.pool  # type: ignore[attr-defined]
                pool.ca_certs, pool.cert_reqs = None, context.verify_mode
        return client

    def _exchange(
        self,
        pool: Any,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        most_bytes: int,
        timeout_s: float,
    ) -> Reply:
        where = f"{pool.host}:{pool.port}"
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)
        try:
            response = pool.urlopen(
                method, path, body=body, headers=dict(headers), retries=False, redirect=False,
                timeout=timeout, preload_content=False, decode_content=True,
            )  # fmt: skip
            data: bytes | None = None
            try:
                data = _bounded(response, most_bytes, where)
            finally:
                if data is None:
                    response.close()  # a connection with an unread rest must not be used again
            response.release_conn()
            return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data)
        except (HTTPError, OSError) as error:
            raise self._sentence(error, where, timeout_s) from None

    def _sentence(self, error: Exception, where: str, timeout_s: float) -> EsError:
        """The typed error for an exception of the transport."""
        cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        found = _ssl_error(cause)
        if found is not None:
            return _tls_sentence(found, where)
        if isinstance(cause, NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
            if isinstance(cause, urllib3.exceptions.NameResolutionError):
                return Unreachable("name", f"{where}: no such host; is es_config.es_host right, and does DNS answer?")
            reason = _reason(cause) if isinstance(cause, NewConnectionError) else "no answer"
            return Unreachable("connect", f"{where}: cannot connect: {reason}; is Elasticsearch running there?")
        if isinstance(cause, ReadTimeoutError | TimeoutError):
            return NoReply("timeout", f"{where}: no reply within {timeout_s:g} s")
        if not self._es.secure and isinstance(cause, ProtocolError):
            hint = "; if the server speaks TLS on that port, set es_config.secure to true"
            return NoReply("protocol", f"{where}: the connection broke before a reply came ({_reason(cause)}){hint}")
        return NoReply("broken", f"{where}: the connection broke before a whole reply came ({_reason(cause)})")


def _bounded(response: Any, most_bytes: int, where: str) -> bytes:
    pieces, size = [], 0
    while piece := response.read(_PIECE):
        size += len(piece)
        if size > most_bytes:
            raise NoReply("too_long", f"{where}: the reply is longer than {most_bytes} bytes: not Elasticsearch's")
        pieces.append(piece)
    return b"".join(pieces)


def _reason(error: BaseException) -> str:
    """The innermost OSError's words, else the exception's kind."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        inner = next((one for one in seen.args if isinstance(one, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__
    words = str(error.args[0]) if error.args else ""
    return words.partition("(")[0].strip(" :,") or type(error).__name__


def _ssl_error(error: BaseException) -> ssl.SSLError | ssl.CertificateError | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        inner = next((one for one in seen.args if isinstance(one, BaseException)), None)
        if inner is None and isinstance(seen, TransportSslError):
            inner = seen.__cause__ or seen.__context__
        seen = inner
    return None


# X509_V_ERR_*: OpenSSL's include/openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _HOST_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64


def _tls_sentence(error: ssl.SSLError, where: str) -> EsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        code, words = error.verify_code, error.verify_message
        if code in (_HOST_MISMATCH, _IP_MISMATCH):
            return TlsRefused(
                "host_name",
                f"{where}: the server's certificate is for another name ({words}); "
                "write in es_config.es_host a name that it holds, or give the server a right certificate",
            )
        if code in (_EXPIRED, _NOT_YET_VALID):
            return TlsRefused(
                "expired", f"{where}: {words}; renew it on the server (or is the clock of this host wrong?)"
            )
        return TlsRefused(
            "certificate",
            f"{where}: the server's certificate is not signed by a trusted authority ({words}); "
            "name the authority that signed it in es_config.ca_certs, or its fingerprint in ca_fingerprint",
        )
    reason = (getattr(error, "reason", "") or str(error)).replace(" ", "_").upper()
    if any(word in reason for word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER")):
        return TlsRefused(
            "not_tls",
            f"{where}: the server does not speak TLS on that port (plain http?); switch TLS on there, or, on this host "
            "only, set es_config.secure to false",
        )
    if "PROTOCOL" in reason or "VERSION" in reason or "TLSV1_ALERT" in reason:
        return TlsRefused(
            "version", f"{where}: the server offers only a TLS version below 1.2; switch TLS 1.2 or 1.3 on there"
        )
    return TlsRefused("handshake", f"{where}: the TLS handshake failed ({reason.lower().replace('_', ' ')})")


def _pinned_authority(es: EsConfig) -> str:
    """The certificate with the configured fingerprint, as PEM, out of the chain that a server shows.

    Nothing is trusted here: the certificate is found by its SHA-256 and then used as the only authority of a verified
    connection. (Comparing fingerprints with an unverified chain, as the client's own option does, would accept a forged
    server certificate beside the genuine authority's.) Raises Unreachable or TlsRefused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    last: EsError | None = None
    for host in es.es_host:
        where = f"{host}:{es.es_port}"
        try:
            with (
                socket.create_connection((host, es.es_port), CONNECT_TIMEOUT_S) as plain,
                context.wrap_socket(plain, server_hostname=host) as wrapped,
            ):
                shown = _chain(wrapped)
        except ssl.SSLError as error:
            last = _tls_sentence(error, where)
        except OSError as error:
            last = Unreachable("connect", f"{where}: cannot connect: {_reason(error)}; is Elasticsearch running there?")
        else:
            for der in shown:
                if hashlib.sha256(der).hexdigest() == es.ca_fingerprint:
                    return ssl.DER_cert_to_PEM_cert(der)
            last = TlsRefused(
                "fingerprint",
                f"{where}: none of the {len(shown)} certificates that the server shows has the fingerprint in "
                "es_config.ca_fingerprint; is it the authority's, and does the server send it? (else use ca_certs)",
            )
    raise last or Unreachable("connect", "no host is configured")


def _chain(wrapped: ssl.SSLSocket) -> list[bytes]:
    """The certificates that the peer sent, DER. (Public from Python 3.13 on; before that on the inner object.)"""
    public = getattr(wrapped, "get_unverified_chain", None)
    if public is not None:
        return [bytes(one) for one in public()]
    inner: Any = wrapped._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_unverified_chain() or ()]
