#!/bin/sh
# Builds the Debian package:  scripts/package.sh [OUTPUT DIRECTORY]  (build/deb), needs what scripts/setup.sh package installs.
#
#   EBPF_MONITOR_VERSION   another version than the program's own, for a test of upgrades
set -eu
cd -P "$(dirname "$0")/.."
umask 022
out=$(realpath -m "${1-build/deb}")
# The release in the version: each has a package of its own, and that of a newer release is the newer one.
version=${EBPF_MONITOR_VERSION-$(.venv/bin/python -c 'import monitor; print(monitor.__version__)')+$(. /etc/os-release; echo "$ID${VERSION_ID-}")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One time for everything in it: the last commit's, so that the same source gives the same package.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
source="$work/ebpf-monitor-$version"
mkdir -p "$source" "$out"
cp -R packaging/debian "$source/debian"
{
    printf 'ebpf-monitor (%s) unstable; urgency=medium\n\n' "$version"
    printf '  * See /usr/share/doc/ebpf-monitor/CHANGELOG.md.\n\n'
    printf ' -- The ebpf-monitor developers <ebpf-monitor@localhost>  %s\n' "$(LC_ALL=C date -R -u -d "@$SOURCE_DATE_EPOCH")"
} >"$source/debian/changelog"
# numpy and the others are built for this one Python.
PYTHON_DEPENDS=$(/usr/bin/python3 -c 'import sys; a, b = sys.version_info[:2]; print(f"python3 (>= {a}.{b}), python3 (<< {a}.{b + 1})")')
CHECKOUT=$PWD
export PYTHON_DEPENDS CHECKOUT
log="$work/log"
(cd "$source" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$log" 2>&1) || { tail -n 40 "$log" >&2; exit 1; }
cp "$work"/ebpf-monitor_*.deb "$out/"
for built in "$work"/ebpf-monitor_*.deb; do echo "package: $out/$(basename "$built") ($(du -h "$built" | cut -f 1))"; done
