#!/bin/sh
# Installs the program for the whole system, or takes it away:  scripts/install.sh install|enable|uninstall
#
# install: build it, put it in its places, then enable. enable: start what lies in its places.
#   DESTDIR   a tree to install into instead of / (a package is made so): then nothing is started, no user is made
#
# Needs what scripts/setup.sh leaves (.venv with pip and numba) and a C compiler. /usr/lib/ebpf-monitor is a virtual environment of
# its own, with the locked requirements but without numba: the compiled pass is made here, ahead of time.
set -eu

PYTHON=/usr/bin/python3
HOME_DIR=/usr/lib/ebpf-monitor
UNITS="ebpf-monitor.service ebpf-monitor-ship.service ebpf-monitor-metrics.service ebpf-monitor-logrotate.service ebpf-monitor-logrotate.timer"
TEST_MARK="# test group: only with make test and make check"
# Needed to build, or only by numba.
BUILD_ONLY="numba llvmlite setuptools"

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

wanted() { # the locked runtime requirements with their hashes, without those of BUILD_ONLY
    sed "/^$TEST_MARK\$/,\$d" requirements.lock | awk -v names="$BUILD_ONLY" '
        BEGIN { split(names, list, " "); for (i in list) left[list[i]] = 1 }
        /^[a-z]/ { split($0, word, "=="); skip = word[1] in left }
        !skip { print }'
}

environment() { # $1: where it is built; it will run at $HOME_DIR
    rm -rf "$1"
    "$PYTHON" -m venv --without-pip "$1"
    sed -i '/^command = /d' "$1/pyvenv.cfg" # the only place that names the directory it was made in
    rm -f "$1"/bin/[Aa]ctivate*
    site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip --quiet --no-input install --no-compile --target $site"
    say "installing the locked Python packages"
    wanted >"$work/requirements"
    $pip --no-deps --require-hashes --only-binary :all: -r "$work/requirements"
    say "installing ebpf-monitor $(.venv/bin/python -c 'import monitor; print(monitor.__version__)')"
    # From a copy: a build leaves its traces beside the source.
    mkdir "$work/source"
    cp -R monitor bpf setup.cfg pyproject.toml README.md "$work/source"
    $pip --no-deps --no-build-isolation --no-index "$work/source"
    say "compiling the pass over the rings ahead of time"
    .venv/bin/python scripts/compile_ahead.py "$site/monitor"
    rm -rf "$site/bin"
    ln -s /usr/lib/python3/dist-packages/bcc "$site/bcc" # and nothing else of the distribution's packages
    find "$1" \( -name __pycache__ -o -path '*/numpy/*/tests' \) -type d -prune -exec rm -rf {} +
    # Never written at run time, so never compared with its source: what runs is what was installed.
    "$1/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$1" -p "$HOME_DIR" "$site"
    printf '#!%s/bin/python3 -I\nfrom monitor.cli import main\n\nmain()\n' "$HOME_DIR" >"$1/bin/ebpf-monitor"
    chmod 755 "$1/bin/ebpf-monitor"
    install -m 755 systemd/hand-over systemd/allow-servers "$1/"
}

files() { # $1: the tree
    install -d "$1/usr/bin" "$1/etc/ebpf-monitor" "$1/etc/logrotate.d" "$1/usr/lib/sysusers.d" "$1/usr/lib/tmpfiles.d" \
        "$1/lib/systemd/system" "$1/usr/share/doc/ebpf-monitor" "$1/usr/share/man/man1" \
        "$1/usr/share/bash-completion/completions" "$1/usr/share/zsh/vendor-completions" "$1/usr/share/fish/vendor_completions.d"
    ln -sf "$HOME_DIR/bin/ebpf-monitor" "$1/usr/bin/ebpf-monitor"
    for unit in $UNITS; do install -m 644 "systemd/$unit" "$1/lib/systemd/system/"; done
    install -m 644 systemd/ebpf-monitor.sysusers "$1/usr/lib/sysusers.d/ebpf-monitor.conf"
    install -m 644 systemd/ebpf-monitor.tmpfiles "$1/usr/lib/tmpfiles.d/ebpf-monitor.conf"
    install -m 644 logrotate/ebpf-monitor "$1/etc/logrotate.d/ebpf-monitor"
    # The operator's own: an existing one stays.
    [ -e "$1/etc/ebpf-monitor/config.json" ] || install -m 640 config/config.package.json "$1/etc/ebpf-monitor/config.json"
    for doc in README.md CHANGELOG.md config/config.sample.json docs/*.md config/prometheus/*.yml; do install -m 644 "$doc" "$1/usr/share/doc/ebpf-monitor/"; done
    .venv/bin/python scripts/command_files.py "$1/usr/share"
}

do_install() {
    [ -x .venv/bin/ebpf-monitor ] || die "run make setup first"
    tree=${DESTDIR-}
    [ -n "$tree" ] || [ "$(id -u)" -eq 0 ] || die "needs root: sudo make install (or a DESTDIR)"
    install -d "$tree/usr/lib"
    environment "$tree$HOME_DIR.new"
    rm -rf "$tree$HOME_DIR"
    mv "$tree$HOME_DIR.new" "$tree$HOME_DIR"
    files "$tree"
    [ -n "$tree" ] || do_enable
}

do_enable() {
    [ "$(id -u)" -eq 0 ] || die "needs root: sudo make install"
    [ -d /run/systemd/system ] || { say "no systemd runs here: nothing was enabled"; return 0; }
    systemd-sysusers ebpf-monitor.conf
    systemd-tmpfiles --create ebpf-monitor.conf
    systemctl daemon-reload
    systemctl enable --quiet ebpf-monitor.service ebpf-monitor-logrotate.timer
    systemctl restart ebpf-monitor.service ebpf-monitor-logrotate.timer
    say "running: ebpf-monitor status"
}

do_uninstall() { # configuration and log stay
    [ "$(id -u)" -eq 0 ] || die "needs root: sudo make uninstall"
    if [ -d /run/systemd/system ]; then
        for unit in ebpf-monitor-metrics.service ebpf-monitor-ship.service ebpf-monitor-logrotate.timer ebpf-monitor.service; do
            systemctl disable --quiet --now "$unit" || true
        done
    fi
    rm -rf "$HOME_DIR" /sys/fs/bpf/ebpf-monitor /usr/share/doc/ebpf-monitor
    for unit in $UNITS; do rm -f "/lib/systemd/system/$unit"; done
    rm -f /usr/bin/ebpf-monitor /usr/lib/sysusers.d/ebpf-monitor.conf /usr/lib/tmpfiles.d/ebpf-monitor.conf \
        /etc/logrotate.d/ebpf-monitor /usr/share/man/man1/ebpf-monitor.1 /usr/share/man/man1/ebpf-monitor-*.1 \
        /usr/share/bash-completion/completions/ebpf-monitor /usr/share/zsh/vendor-completions/_ebpf-monitor \
        /usr/share/fish/vendor_completions.d/ebpf-monitor.fish /var/lib/systemd/timers/stamp-ebpf-monitor-logrotate.timer
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    say "gone; /etc/ebpf-monitor and /var/monitoring are left"
}

cd -P "$(dirname "$0")/.."
umask 022
case ${1-} in
    install) do_install ;;
    enable) do_enable ;;
    uninstall) do_uninstall ;;
    *) die "usage: scripts/install.sh install|enable|uninstall" ;;
esac
