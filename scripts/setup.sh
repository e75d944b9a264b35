#!/bin/sh
# Makes a bare Debian 12, Debian 13 or Ubuntu 24.04 machine ready:  scripts/setup.sh run|package|test|kernels
#
#   run     what the monitor needs: Debian packages, .venv with the locked runtime requirements, .venv/bin/ebpf-monitor, and the
#           pass over the rings compiled ahead of time (monitor/ahead.py)
#   package that, and what a package is built with
#   test    that, and what the tests and linters need
#   kernels that, and what boots other kernels
#   lock    rewrites requirements.lock from setup.cfg with the newest versions that fit (a developer's command)
#
# Installs only what is missing, prints one line for each step, and prints nothing when there is nothing to do. It is a
# shell script because a bare machine may have no Python yet. The package index is the machine's own (pip's configuration).
set -eu

RUN_PACKAGES="python3 python3-venv python3-bpfcc libbpf1 gcc libc6-dev libpython3-dev"
BUILD_PACKAGES="make debhelper"
TEST_PACKAGES="$BUILD_PACKAGES groff-base gnupg bpftrace logrotate maven default-jre-headless openssl"
KERNEL_PACKAGES="$TEST_PACKAGES qemu-system-x86 debootstrap e2fsprogs"
# Debian's own interpreter, never the first one on PATH: only this one fits the distribution's BCC.
PYTHON=/usr/bin/python3
DIST_PACKAGES=/usr/lib/python3/dist-packages
TEST_MARK="# test group: only with make test and make check"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Settings for somebody else's Python or pip target would bend ours. Where pip looks for packages is left alone.
clean_environment() {
    for name in $(env | sed -n 's/^\(PYTHON[A-Z0-9_]*\)=.*/\1/p') \
        PIP_CONSTRAINT PIP_PREFIX PIP_REQUIRE_VIRTUALENV PIP_ROOT PIP_TARGET PIP_USER VIRTUAL_ENV; do
        unset "$name"
    done
    umask 022
}

# ---- Debian packages -------------------------------------------------------------------------------------------------

missing_packages() { # the arguments that are not installed
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
    for package in "$@"; do
        case $installed in *" installed:$package "*) ;; *) printf '%s ' "$package" ;; esac
    done
}

apt() { # quiet, never asks, waits for another apt; what it says goes to $apt_log
    $as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8 \
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=2 "$@" </dev/null >>"$apt_log" 2>&1
}

install_packages() { # installs the arguments; refreshes the package lists only when it does not work without
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "these Debian packages are missing: $*. Install them as root: apt-get install $*"
        as_root=sudo
    fi
    command -v apt-get >/dev/null 2>&1 || die "needs the packages $* and knows only apt-get; see README.md for other systems"
    apt_log=$(mktemp)
    say "installing Debian packages: $*"
    for attempt in 0 1 2 3; do
        if [ "$attempt" -gt 0 ]; then
            say "refreshing the package lists (attempt $attempt of 3)"
            apt update || sleep "$attempt"
        fi
        if apt install --no-install-recommends --no-remove "$@"; then
            rm -f "$apt_log"
            return
        fi
    done
    grep -E '^(E|Err|W):' "$apt_log" | sort -u | tail -n 5 >&2 || true
    die "apt-get could not install $*. Is there a network, and do the package sources work? All it said: $apt_log"
}

# ---- the virtual environment -----------------------------------------------------------------------------------------

state() { # one line: changes whenever something that .venv was made from changes
    {
        cat requirements.lock setup.cfg pyproject.toml scripts/setup.sh
        pwd
        readlink -f "$PYTHON"
        dpkg-query -W -f '${Package} ${Version}\n' python3-minimal python3-bpfcc 2>/dev/null || true
    } | sha256sum | cut -d ' ' -f 1
}

is_ready() { # $1: group. The test group contains the run group.
    [ -x .venv/bin/ebpf-monitor ] && [ -x .venv/bin/python ] && [ -r .venv/setup.stamp ] || return 1
    read -r stamped_state stamped_group <.venv/setup.stamp || return 1
    [ "$stamped_state" = "$(state)" ] && { [ "$stamped_group" = "$1" ] || [ "$stamped_group" = test ]; }
}

pip() {
    log=.venv/setup.log
    .venv/bin/python -m pip --quiet --no-input --disable-pip-version-check "$@" </dev/null >"$log" 2>&1 && return
    tail -n 15 "$log" >&2
    die "pip could not install the locked requirements. Is there a network, and is pip's index right (pip config list)? All it said: $PWD/$log"
}

make_venv() { # kept when it was made in this very place by this very interpreter, made anew otherwise
    identity='import os, sys; print(sys.version.split()[0], os.path.realpath(sys.executable))'
    want=$("$PYTHON" -c "$identity")
    have=$(.venv/bin/python -c "$identity" 2>/dev/null || true)
    made_as=$(sed -n 's/^command = //p' .venv/pyvenv.cfg 2>/dev/null || true)
    case $made_as in *" $PWD/.venv") [ "$want" != "$have" ] || return 0 ;; esac
    say "creating .venv with $PYTHON (${want%% *})"
    "$PYTHON" -m venv --clear .venv || die "$PYTHON -m venv failed; what it said is above"
}

link_bcc() { # the module and its metadata, and nothing else of the distribution's packages
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -f "$site"/bcc "$site"/bcc-*
    for entry in "$DIST_PACKAGES"/bcc "$DIST_PACKAGES"/bcc-*; do
        [ -e "$entry" ] || die "python3-bpfcc is installed, but there is no $entry"
        ln -s "$entry" "$site/"
    done
}

requirements() { # the part of the lock file for $1
    if [ "$1" = test ]; then cat requirements.lock; else sed "/^$TEST_MARK\$/,\$d" requirements.lock; fi
}

fill_venv() { # $1: group
    rm -f .venv/setup.stamp
    link_bcc
    say "installing the locked Python packages ($1)"
    requirements "$1" >.venv/setup.requirements
    pip install --require-hashes --only-binary :all: -r .venv/setup.requirements
    if [ "$1" = test ]; then add_promtool && add_openssh && add_web; fi
    say "installing ebpf-monitor from this directory"
    pip install --no-deps --no-build-isolation --no-index --editable .
    printf '%s %s\n' "$(state)" "$1" >.venv/setup.stamp.new
    mv .venv/setup.stamp.new .venv/setup.stamp
}

add_promtool() { # .venv/bin/promtool out of Debian's prometheus, which is not installed: that would start a server
    if [ -x .venv/bin/promtool ]; then return; fi
    unpack "promtool" prometheus
    cp "$work/tree/usr/bin/promtool" .venv/bin/promtool
    rm -rf "$work"
    trap - EXIT
}

add_openssh() { # .venv/openssh: sshd and sudo for a login in namespaces of its own; installed, they would open this host
    if [ -d .venv/openssh ]; then return; fi
    unpack "sshd and sudo" openssh-server sudo libwrap0
    mv "$work/tree" .venv/openssh
    rm -rf "$work"
    trap - EXIT
}

add_web() { # .venv/web: nginx and wrk for the benchmark; installed, nginx would start to serve
    if [ -d .venv/web ]; then return; fi
    unpack "nginx and wrk" nginx wrk libluajit-5.1-2
    mv "$work/tree" .venv/web
    rm -rf "$work"
    trap - EXIT
}

unpack() { # what it is for, then packages: downloads them and unpacks them into $work/tree
    say "unpacking $1 from Debian's packages"
    shift
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    as_root=
    chmod 755 "$work" # apt drops its privileges to download
    if ! (cd "$work" && apt-get -q -y download "$@") >"$work/log" 2>&1; then
        if [ "$(id -u)" -eq 0 ]; then apt_log=$work/log; apt update || true; fi
        (cd "$work" && apt-get -q -y download "$@") >"$work/log" 2>&1 || { cat "$work/log" >&2; die "apt-get could not download $*"; }
    fi
    for package in "$work"/*.deb; do dpkg -x "$package" "$work/tree"; done
}

# ---- the compiled pass -----------------------------------------------------------------------------------------------

pass_state() { # one line: changes whenever something that the module is made from changes
    cat .venv/setup.stamp monitor/ahead.py monitor/fast*.py monitor/model.py monitor/events/*.py \
        scripts/compile_ahead.py | sha256sum
}

has_pass() { [ "$(cat .venv/pass.stamp 2>/dev/null)" = "$(pass_state)" ] && ls monitor/_fastpath.*.so >/dev/null 2>&1; }

make_pass() { # without it the monitor works too: numba compiles at its start
    say "compiling the pass over the rings ahead of time"
    if .venv/bin/python scripts/compile_ahead.py monitor </dev/null >.venv/pass.log 2>&1; then
        pass_state >.venv/pass.stamp
    else
        say "that failed ($PWD/.venv/pass.log); numba compiles it at each start instead"
    fi
}

# ---- the lock file ---------------------------------------------------------------------------------------------------

write_lock() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    say "resolving the newest versions (uv)"
    "$PYTHON" -m venv "$work/venv" && "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check install uv
    compile() {
        "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
            --no-emit-index-url --no-emit-find-links --annotation-style line "$@" >/dev/null
    }
    # The build backend is locked as well: the project itself is then installed without asking an index again.
    sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml >"$work/build.in"
    compile setup.cfg "$work/build.in" --output-file "$work/run.txt"
    # shellcheck disable=SC2046 # one option for each name
    compile setup.cfg --extra test --constraint "$work/run.txt" --output-file "$work/test.txt" \
        $(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' "$work/run.txt")
    {
        echo "# Made by \`make lock\` from setup.cfg and pyproject.toml, for every CPython from 3.11 on; do not edit."
        echo "# runtime group"
        sed "s,$work/build.in,pyproject.toml," "$work/run.txt"
        echo "$TEST_MARK"
        sed "/^# The following packages were excluded/,\$d" "$work/test.txt"
    } >"$work/lock"
    cat "$work/lock" >requirements.lock
    say "requirements.lock: $(grep -c '==' requirements.lock) pinned packages"
}

# ----------------------------------------------------------------------------------------------------------------------

cd -P "$(dirname "$0")/.."
clean_environment
case ${1-} in
    run) packages=$RUN_PACKAGES ;;
    package) packages="$RUN_PACKAGES $BUILD_PACKAGES"; set -- run ;;
    test) packages="$RUN_PACKAGES $TEST_PACKAGES" ;;
    kernels) packages="$RUN_PACKAGES $KERNEL_PACKAGES"; set -- test ;;
    lock) write_lock; exit ;;
    *) die "usage: scripts/setup.sh run|package|test|kernels|lock" ;;
esac

# shellcheck disable=SC2086 # lists of words
missing=$(missing_packages $packages)
if [ -z "$missing" ] && is_ready "$1" && has_pass; then exit 0; fi
exec 9<scripts/setup.sh
flock -n 9 || { say "waiting for another setup in this directory"; flock 9; }
# shellcheck disable=SC2086
[ -z "$missing" ] || install_packages $missing
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11; $PYTHON is older (Debian 12, Ubuntu 24.04 or later)"
if ! is_ready "$1"; then
    make_venv
    fill_venv "$1"
fi
has_pass || make_pass
say "ready: .venv/bin/ebpf-monitor"
