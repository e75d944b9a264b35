"""make release: what is in dist/ can be checked with gpg and sha256sum alone, and the SBOM names what the package holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import __version__
from tests.service.package import HOST, built

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def keyring(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a GnuPG keyring of its own and the fingerprint of a key in it."""
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    make = [
        "gpg",
        "--batch",
        "--quiet",
        "--passphrase",
        "",
        "--quick-gen-key",
        "Test <test@localhost>",
        "ed25519",
        "sign",
        "1d",
    ]
    subprocess.run(make, env=environment, check=True, capture_output=True)
    listed = subprocess.run(
        ["gpg", "--list-keys", "--with-colons"], env=environment, check=True, capture_output=True, text=True
    )
    yield environment | {"SIGNING_KEY": re.findall(r"(?m)^fpr:+(\w+):", listed.stdout)[0]}
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


def test_a_release_is_summed_signed_and_listed(tmp_path: Path, keyring: dict[str, str]) -> None:
    dist = tmp_path / "dist"
    environment = keyring | {"DIST": str(dist), "PACKAGE": str(built(HOST))}
    done = subprocess.run([ROOT / "scripts/release.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in dist.iterdir()}
    assert {
        built(HOST).name,
        f"ebpf_monitor-{__version__}-py3-none-any.whl",
        f"ebpf-monitor_{__version__}.cdx.json",
    } < names
    check = ["gpg", "--batch", "--verify", "SHA256SUMS.asc", "SHA256SUMS"]
    assert subprocess.run(check, cwd=dist, env=keyring, capture_output=True, check=False).returncode == 0
    summed = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=dist, capture_output=True, text=True, check=False)
    assert (summed.returncode, summed.stdout.count(": OK")) == (0, len(names) - 2)
    with (dist / "SHA256SUMS").open("a") as sums:
        sums.write("0\n")
    assert subprocess.run(check, cwd=dist, env=keyring, capture_output=True, check=False).returncode != 0
    bill = json.loads((dist / f"ebpf-monitor_{__version__}.cdx.json").read_text())
    held = {part["name"]: part["version"] for part in bill["components"]}
    locked = dict(
        re.findall(r"(?m)^([a-z][\w-]*)==(\S+)", (ROOT / "requirements.lock").read_text().split("# test group")[0])
    )
    assert bill["bomFormat"] == "CycloneDX"
    assert held["elasticsearch"] == locked["elasticsearch"]
    assert held["ebpf-monitor"] == __version__
    assert not {"numba", "llvmlite", "setuptools", "pytest"} & held.keys()
