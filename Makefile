# The commands people type. Each is a few words here; the work is in scripts/setup.sh and in the program.

# A Python of somebody else (PYTHONPATH, PYTHONHOME, ...) must not reach ours.
unexport $(filter PYTHON%,$(.VARIABLES)) VIRTUAL_ENV

PY := .venv/bin/python
PYTEST := $(PY) -m pytest --durations=10
SHARED := $(PYTEST) -n auto
# Each process that shares the tests collects them all, which takes 5 s: only where they can be (tests/conftest.py knows the folders, too).
ROOT_TESTS := tests/kernel tests/kernels tests/elasticsearch
# More words for pytest, e.g. make test ARGS='-k exec'
ARGS ?=
DEBIAN ?= bookworm trixie

.DEFAULT_GOAL := help
.PHONY: help setup run test test-system test-kernels check bench bench-delivery workloads deb install uninstall release gen lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

setup: ## install what is missing (Debian packages, .venv), leave .venv/bin/ebpf-monitor
	@scripts/setup.sh run

run: setup ## show events live, until Ctrl-C; the log is under ./var/ (needs root: sudo make run)
	@exec .venv/bin/ebpf-monitor run --print $(ARGS)

test: ## install what the tests need and run all of them but test-system (needs root)
	@[ "$$(id -u)" -eq 0 ] || { echo "make test: the tests on the real kernel need root: sudo make test (make check runs all the others)" >&2; exit 1; }
	@scripts/setup.sh test
	@# Side by side what records little; two and two what has its pace; alone what floods the kernel's rings, since every other monitor
	@# would record it all.
	@# The benchmark's smoke run floods them too, but beside the tests without root nobody records that.
	@export EBPF_MONITOR_KERNEL_TESTS=1; failed=; EBPF_MONITOR_TESTS_COMPILED="$$(mktemp -d)"; export EBPF_MONITOR_TESTS_COMPILED; trap 'rm -rf "$$EBPF_MONITOR_TESTS_COMPILED"' EXIT; \
	$(SHARED) -m 'not root or bench' $(or $(ARGS),--ignore=tests/kernel) || [ $$? -eq 5 ] || failed=1; \
	$(SHARED) -m 'root and not (alone or paced or bench or service)' $(or $(ARGS),$(ROOT_TESTS)) || [ $$? -eq 5 ] || failed=1; \
	$(PYTEST) -n 2 -m paced $(or $(ARGS),tests/kernel) || [ $$? -eq 5 ] || failed=1; \
	$(PYTEST) -m alone $(or $(ARGS),tests/kernel) || [ $$? -eq 5 ] || failed=1; \
	[ -z "$$failed" ] || { \
	  echo "make test: what failed is run once more, alone: tests on the real kernel have deadlines, and other load on the machine can break them"; \
	  $(PYTEST) --last-failed --last-failed-no-failures none $(ARGS); }

test-system: ## install the package in containers with a real systemd, Debian 12 and Debian 13 (DEBIAN=bookworm: only there), and test the service there
	@[ "$$(id -u)" -eq 0 ] || { echo "make test-system: containers need root: sudo make test-system" >&2; exit 1; }
	@scripts/setup.sh test
	@failed=; for release in $(DEBIAN); do \
	  export EBPF_MONITOR_DEBIAN=$$release EBPF_MONITOR_KERNEL_TESTS=1; \
	  $(PYTEST) tests/service $(ARGS) || { \
	    echo "make test-system: what failed is run once more, in a fresh container"; \
	    $(PYTEST) tests/service --last-failed --last-failed-no-failures none $(ARGS); } || failed=1; \
	done; [ -z "$$failed" ]

test-kernels: ## boot Debian's kernels (6.1 to the newest; 5.10 must be refused) in qemu and run the real-kernel tests there; slow (LINES='6.1 6.12': only these)
	@scripts/setup.sh kernels
	$(PY) -m tests.kernels.boot $(LINES)

check: ## linters, types, generated files, and the tests that need no root
	@scripts/setup.sh test
	$(PY) -m ruff check
	$(PY) -m mypy
	$(PY) -m monitor.generate --check
	EBPF_MONITOR_KERNEL_TESTS=0 $(PYTEST) -m 'not root' $(ARGS)

BENCH = EBPF_MONITOR_BENCH=full EBPF_MONITOR_KERNEL_TESTS=1 $(PY) -m pytest -m bench -s
# of delivery only how late an event is found; the rest has a target of its own
DELIVERY = test_a_server_that_only_answers test_a_backlog_of_a_long_outage test_beside_a_plain_bulk_loop

bench: ## measure on this machine, in ten minutes (needs root)
	@scripts/setup.sh test
	$(BENCH) --deselect tests/bench/test_workloads.py $(DELIVERY:%=--deselect tests/bench/test_ship.py::%) $(ARGS)

bench-delivery: ## measure delivery to a real Elasticsearch and beside a plain bulk loop (needs root)
	@scripts/setup.sh test
	$(BENCH) tests/bench/test_ship.py $(ARGS)

workloads: ## measure what each profile logs of ordinary work, and what an event costs, into docs/workloads.md (needs root)
	@scripts/setup.sh test
	@$(PY) -m tests.bench.workloads

deb: ## build the Debian package, into build/deb/
	@scripts/setup.sh package
	@scripts/package.sh

install: ## install for the whole system, without a package (needs root; DESTDIR: into a tree)
	@scripts/setup.sh package
	@scripts/install.sh install

uninstall: ## take that away again; configuration and log stay
	@scripts/install.sh uninstall

release: ## package, checksums, SBOM, and with SIGNING_KEY=ID a detached signature, into dist/
	@scripts/setup.sh package
	@scripts/release.sh

gen: ## write the generated files anew from monitor/events/
	@scripts/setup.sh run
	$(PY) -m monitor.generate
	$(PY) -m tests.kernels.page

lock: ## pin the newest versions in requirements.lock
	@scripts/setup.sh lock

clean: ## remove .venv, ./var, caches and build output
	rm -rf .venv var build dist monitor/_fastpath.* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
