"""ebpf-monitor: a provenance event logger for Linux hosts."""

__version__ = "0.1.0"
