#!/bin/sh
# Makes a release in dist/: the package, the wheel, an SBOM, SHA-256 sums, and a signature of the sums.
#
#   DIST          another directory than dist/
#   PACKAGE       a package of this version that was built already
#   SIGNING_KEY   key id or fingerprint in the caller's own GnuPG keyring; without it nothing is signed, and that is said
set -eu
cd -P "$(dirname "$0")/.."
umask 022
say() { printf 'release: %s\n' "$*"; }

version=$(.venv/bin/python -c 'import monitor; print(monitor.__version__)')
dist=$(realpath -m "${DIST-dist}")
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${PACKAGE-}" ]; then cp "$PACKAGE" "$dist/"; else scripts/package.sh "$dist"; fi
mkdir "$work/source"
cp -R monitor bpf setup.cfg pyproject.toml README.md "$work/source"
.venv/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation --no-index --wheel-dir "$dist" "$work/source"
say "SBOM of what is inside the package (CycloneDX)"
/usr/bin/python3 -m venv "$work/tool"
"$work/tool/bin/python" -m pip --quiet --disable-pip-version-check install 'cyclonedx-bom>=7,<8'
dpkg-deb -x "$dist"/*.deb "$work/tree"
# Its interpreter is a link into the distribution, which is not in the tree.
ln -sf /usr/bin/python3 "$work/tree/usr/lib/ebpf-monitor/bin/python3"
"$work/tool/bin/cyclonedx-py" environment --output-reproducible --output-format JSON --spec-version 1.6 \
    --output-file "$dist/ebpf-monitor_$version.cdx.json" "$work/tree/usr/lib/ebpf-monitor/bin/python3"
(cd "$dist" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
if [ -n "${SIGNING_KEY-}" ]; then
    gpg --batch --yes --local-user "$SIGNING_KEY" --armor --detach-sign --output "$dist/SHA256SUMS.asc" "$dist/SHA256SUMS"
    say "signed by $SIGNING_KEY; check it: gpg --verify SHA256SUMS.asc SHA256SUMS && sha256sum -c SHA256SUMS"
else
    say "not signed: SIGNING_KEY names no key"
fi
ls -l "$dist"
