"""A real Elasticsearch server for tests: fetched once, on loopback only, without privileges, with TLS and a user for each role.

Owns its files and its process; knows nothing of what the tests ask it.

It is Elastic's own minimal build from Maven Central: bulk, search, templates, security with file users and roles, TLS,
logsdb on plain indices. It lacks ILM, data streams, the wildcard type, API keys, and GET / (405).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from monitor.config_keys import EsConfig
from monitor.sinks import credentials
from monitor.sinks.elasticsearch import Connection, EsError, Reply

VERSION = "8.19.4"
_ARTIFACT = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
_NOBODY = 64_932  # a uid of its own: the server refuses to run as root
_STARTED_S = 180.0
INDEX = "ebpf-events"
ROLES = f"""
shipper:
  cluster: ["monitor"]
  indices:
    - names: ["{INDEX}-*"]
      privileges: ["create_doc", "auto_configure"]
reader:
  indices:
    - names: ["{INDEX}-*"]
      privileges: ["create_doc", "auto_configure", "view_index_metadata", "read"]
"""
PASSWORDS = {"admin": "adminpw1", "ship": "shippw12", "reader": "shippw12"}
_BCRYPT = {
    "adminpw1": "$2a$10$BDPrJj.uxSnkOE0Z7YNEquCQTxvx9NAQPU69G4SIAw.R7IyYS0R2q",
    "shippw12": "$2a$10$b6yJKYGGeKqwMJe.7Ywymucaucn47wouhb4klDxykoW0v4bylRYxG",
}
_USER_ROLES = {"admin": "superuser", "ship": "shipper", "reader": "reader"}


def cache() -> Path:
    """Where downloads are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebpf-monitor-tests"


def distribution() -> Path:
    """The server's zip, fetched when it is not in the cache. 97 MB."""
    directory = cache()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"elasticsearch-{VERSION}.zip"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or not zipfile.is_zipfile(path):
            scratch = directory / "fetch"
            shutil.rmtree(scratch, ignore_errors=True)
            print("fetching the Elasticsearch server for the tests (97 MB, once)", file=sys.stderr)
            command = ["mvn", "-q", "-B", "dependency:copy", "-Dmdep.useBaseVersion=true"]
            command += [f"-DoutputDirectory={scratch}", f"-Dartifact={_ARTIFACT}"]
            subprocess.run(command, check=True, timeout=900, cwd=directory)
            next(scratch.glob("*.zip")).replace(path)
            shutil.rmtree(scratch)
    return path


def java_home() -> Path:
    """A Java that this server runs on: Debian's 17 or 21."""
    for version in (17, 21):
        for found in sorted(Path("/usr/lib/jvm").glob(f"java-{version}-openjdk-*")):
            if (found / "bin" / "java").exists():
                return found
    raise FileNotFoundError("no OpenJDK 17 or 21 (scripts/setup.sh test installs it)")


def certificate(
    directory: Path, name: str = "node", *, days: int = 30, names: str = "DNS:localhost,IP:127.0.0.1,IP:::1"
) -> tuple[Path, Path]:
    """A certificate authority in `directory` (made once: ca.pem) and a certificate that it signed: (certificate, key).

    `days` may be negative: then it has expired. `names` is its subjectAltName.
    """

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=directory)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    if not (directory / "ca.pem").exists():
        openssl(
            "req", "-x509", *key, "-days", "3650", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
    openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (directory / f"{name}.ext").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
    when = ["-days", str(days)]
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", f"{name}.ext", "-out", f"{name}.pem", *when)  # fmt: skip
    return directory / f"{name}.pem", directory / f"{name}.key"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server, `start`ed and `stop`ped; what it stores survives both, and `kill`."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, *, heap_mb: int = 512, fast: bool = False) -> Server:
        """A server with files of its own, not started. `fast`: as one would run it, not for a quick start."""
        home = Path(tempfile.mkdtemp(prefix="ebpf-monitor-es-"))
        server = cls(home)
        with zipfile.ZipFile(distribution()) as archive:
            archive.extractall(home)
        dist = home / f"elasticsearch-{VERSION}"
        config = dist / "config"
        for script in (dist / "bin").iterdir():
            script.chmod(0o755)
        (config / "elasticsearch.yml").write_text(
            f"cluster.name: monitor-test\nnode.name: node1\nnetwork.host: 127.0.0.1\nhttp.port: {server.port}\n"
            "discovery.type: single-node\nxpack.security.enabled: true\n"
            "xpack.security.transport.ssl.enabled: false\nxpack.security.http.ssl.enabled: true\n"
            "xpack.security.http.ssl.key: node.key\nxpack.security.http.ssl.certificate: node.chain.pem\n"
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
            "bootstrap.memory_lock: false\n"
            "resource.reload.interval.high: 1s\n"  # roles and users that a test changes
            f"transport.port: {free_port()}\n"
        )
        node, _ = certificate(config)
        (config / "node.chain.pem").write_bytes(node.read_bytes() + (config / "ca.pem").read_bytes())
        shutil.copy(config / "ca.pem", server.ca)
        (config / "roles.yml").write_text(ROLES)
        (config / "users").write_text("".join(f"{user}:{_BCRYPT[word]}\n" for user, word in PASSWORDS.items()))
        (config / "users_roles").write_text("".join(f"{role}:{user}\n" for user, role in _USER_ROLES.items()))
        small = ["-XX:TieredStopAtLevel=1", "-XX:-UseG1GC", "-XX:+UseSerialGC"]  # half the CPU time of a start
        options = [f"-Xms{heap_mb}m", f"-Xmx{heap_mb}m", *([] if fast else small)]
        (config / "jvm.options.d" / "heap.options").write_text("\n".join(options) + "\n")
        home.chmod(0o755)
        return server

    @property
    def dist(self) -> Path:
        """The server's own directory."""
        return self.home / f"elasticsearch-{VERSION}"

    @property
    def ca(self) -> Path:
        """The authority that signed the server's certificate."""
        return self.home / "ca.pem"

    def set_role(self, text: str) -> None:
        """Replaces roles.yml; the server reads it again within some seconds."""
        (self.dist / "config" / "roles.yml").write_text(text)

    def set_users(self, lines: Mapping[str, str]) -> None:
        """Replaces the users: name to password, one of PASSWORDS' values."""
        text = "".join(f"{user}:{_BCRYPT[word]}\n" for user, word in lines.items())
        (self.dist / "config" / "users").write_text(text)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        scratch = self.home / "tmp"
        scratch.mkdir(mode=0o700, exist_ok=True)
        as_root = os.geteuid() == 0
        if as_root:
            subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", str(self.home)], check=True)
            os.chown(self.ca, 0, 0)  # a trusted file must not belong to somebody else
        environment = {
            "PATH": "/usr/bin:/bin",
            "ES_JAVA_HOME": str(java_home()),
            "ES_TMPDIR": str(scratch),
            "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={scratch} -XX:-UsePerfData",  # the launcher, which asks java for its flags
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
        }
        with (self.home / "start.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(self.dist / "bin" / "elasticsearch"), "-p", str(self.home / "es.pid")],
                env=environment, cwd=self.home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, **({"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if as_root else {}),
            )  # fmt: skip
        deadline = time.monotonic() + _STARTED_S
        while True:
            try:
                ready = self.ask("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s").status == 200
                if ready and self.ask("GET", "/_search?size=0&allow_partial_search_results=false").status == 200:
                    return  # a shard that has just been recovered may not be searched yet
            except EsError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Elasticsearch did not start:\n{(self.home / 'start.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def config(self, user: str = "ship", **changed: Any) -> EsConfig:
        """An es_config for this server."""
        es = EsConfig(
            es_host=("localhost",), es_port=self.port, es_user=user, es_password=PASSWORDS[user], ca_certs=self.ca
        )
        return replace(es, **changed)

    def connection(self, user: str = "admin", **options: Any) -> Connection:
        """A connection of this user."""
        es = self.config(user)
        return Connection(es, credentials.read(es), **options)

    def ask(self, method: str, path: str, body: Any = None, user: str = "admin") -> Reply:
        """One request; `body` is JSON."""
        connection = self.connection(user)
        try:
            return connection.perform(method, path, None if body is None else orjson.dumps(body))
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of a request that must succeed."""
        reply = self.ask(method, path, body)
        if reply.status not in (200, 201):
            raise AssertionError(f"{method} {path}: {reply.status} {reply.body[:500]!r}")
        return orjson.loads(reply.body)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        pid = 0
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.home / "es.pid").read_text())
        try:
            os.kill(pid or self._process.pid, number)
        except ProcessLookupError:
            self._process.terminate()
        self._process.wait(60)
        Path(f"/tmp/.java_pid{pid}").unlink(missing_ok=True)  # HotSpot's socket for attaching, always there
        self._process = None

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the server."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Ends it and removes its files."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)
