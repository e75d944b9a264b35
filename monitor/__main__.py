"""`python -m monitor` is the `ebpf-monitor` command."""

from monitor.cli import main

main()
