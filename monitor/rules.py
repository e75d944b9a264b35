"""Detection rules for Elastic Security, as data, and the form in which Kibana imports them.

Each is switched off at first (`enabled: false`): which of them fit a site is its owner's decision. Queries are in KQL.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from monitor.dashboards import CHANGED, OUTBOUND
from monitor.kibana import known

_NAMESPACE = uuid.UUID("0b7c7f0e-6d0c-5c53-9a0e-5a3f6f2b9d10")
_SCORE = {"low": 21, "medium": 47, "high": 73, "critical": 99}
_ATTACK = "https://attack.mitre.org"
_TACTICS = {
    "Execution": "TA0002", "Persistence": "TA0003", "Privilege Escalation": "TA0004", "Defense Evasion": "TA0005",
    "Credential Access": "TA0006", "Command and Control": "TA0011",
}
_TECHNIQUES = {
    "T1620": "Reflective Code Loading", "T1070": "Indicator Removal", "T1059": "Command and Scripting Interpreter",
    "T1098": "Account Manipulation", "T1053": "Scheduled Task/Job", "T1543": "Create or Modify System Process",
    "T1574": "Hijack Execution Flow", "T1571": "Non-Standard Port", "T1548": "Abuse Elevation Control Mechanism",
    "T1003": "OS Credential Dumping", "T1562": "Impair Defenses", "T1552": "Unsecured Credentials",
    "T1036": "Masquerading", "T1547": "Boot or Logon Autostart Execution", "T1055": "Process Injection",
    "T1083": "File and Directory Discovery",
}


@dataclass(frozen=True)
class Rule:
    """One rule. `threshold` is (field, at least so many events); `new_terms` are fields whose combination is new."""

    name: str
    doc: str
    query: str
    severity: str
    tactic: str = ""
    technique: str = ""
    harmless: str = ""
    threshold: tuple[str, int] | None = None
    new_terms: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_EXEC = "ebpf.event: process_exec and event.outcome: success"
_SHELLS = "bash or sh or dash or zsh or ksh or busybox"
_INTERPRETERS = f"{_SHELLS} or nc or ncat or netcat or socat or perl* or python* or ruby* or php* or lua*"
_PACKAGES = "dpkg or apt or apt-get or rpm or dnf or yum or zypper or systemd or systemctl or unattended-upgr"

RULES: tuple[Rule, ...] = (
    Rule("Program started from memory", "A program ran from a memfd: it was never a file that a scanner could have seen.",
         f"{_EXEC} and file.path: memfd* and ebpf.path_flags: no_path", "high", "Defense Evasion", "T1620",
         "Container runtimes that start themselves again from a sealed copy (runc)."),
    Rule("Program started after its file was deleted", "The executable had no name any more when it was started.",
         f"{_EXEC} and ebpf.path_flags: deleted and not file.path: memfd*", "high", "Defense Evasion", "T1070",
         "An update that replaces a program while it starts."),
    Rule("Program started from a directory that everybody can write", "The executable lies in /tmp, /var/tmp or /dev/shm.",
         f"{_EXEC} and process.executable: (/tmp/* or /var/tmp/* or /dev/shm/*)", "medium", "Execution", "T1059",
         "Installers and builds that unpack into /tmp."),
    Rule("Accounts or sudo rules changed", "The files that say who may become whom were changed by no account tool.",
         f"{CHANGED} and file.path: (/etc/passwd or /etc/shadow or /etc/group or /etc/gshadow or /etc/sudoers or /etc/sudoers.d/*)"
         f" and not process.name: (useradd or usermod or userdel or groupadd or groupdel or passwd or chpasswd or visudo or {_PACKAGES})",
         "high", "Persistence", "T1098", "Configuration management."),
    Rule("Authorized SSH keys changed", "Somebody may now log in with another key.",
         f"{CHANGED} and file.path: (*/.ssh/authorized_keys or */.ssh/authorized_keys2)", "high", "Persistence", "T1098",
         "ssh-copy-id, configuration management."),
    Rule("Scheduled task changed", "A cron job or a timer was made or changed by no package tool.",
         f"{CHANGED} and file.path: (/etc/cron* or /var/spool/cron/* or /etc/systemd/system/*.timer)"
         f" and not process.name: (crontab or {_PACKAGES})", "medium", "Persistence", "T1053"),
    Rule("System service changed", "A unit of systemd was made or changed by no package tool.",
         f"{CHANGED} and file.path: (/etc/systemd/system/*.service or /usr/lib/systemd/system/*.service or /lib/systemd/system/*.service)"
         f" and not process.name: ({_PACKAGES})", "medium", "Persistence", "T1543", "Configuration management."),
    Rule("Library preloading changed", "A file that puts code into every program was changed.",
         f"{CHANGED} and file.path: (/etc/ld.so.preload or /etc/ld.so.conf or /etc/ld.so.conf.d/*)", "critical",
         "Persistence", "T1574", "Packages that add a library directory."),
    Rule("Shell start-up file changed", "What runs at every login of a user was changed.",
         f"{CHANGED} and file.path: (*/.bashrc or */.bash_profile or */.profile or */.zshrc or /etc/profile or /etc/profile.d/*)",
         "low", "Persistence", "T1547", "People who edit their own."),
    Rule("Shell made a network connection", "A shell itself connected to another host.",
         f"{OUTBOUND} and process.name: ({_SHELLS}) and not destination.ip: (\"127.0.0.0/8\" or \"::1\")", "high",
         "Command and Control", "T1059", "Scripts that use /dev/tcp."),
    Rule("Interpreter listens", "An interpreter or a relay waits for connections on an address of the network.",
         f"ebpf.event: socket_listen and event.outcome: success and process.name: ({_INTERPRETERS}) and source.port: *",
         "medium", "Command and Control", "T1571", "Services written in such a language."),
    Rule("Root gained through a program", "A program started by an ordinary user runs as root, and is no known door.",
         f"{_EXEC} and user.id: 0 and process.real_user.id: * and not process.real_user.id: 0"
         " and not process.name: (sudo or su or passwd or chsh or chfn or newgrp or mount or umount or pkexec or fusermount* or crontab"
         " or ping* or unix_chkpwd or ssh-keysign or dbus-daemon-launch-helper or polkit-agent-helper-1)",
         "high", "Privilege Escalation", "T1548"),
    Rule("Stored secrets opened", "Password hashes or private keys were opened by a program that has no business there.",
         "ebpf.event: file_open and event.outcome: success and file.path: (/etc/shadow or /etc/gshadow or */.ssh/id_* or */.aws/credentials"
         " or */.kube/config or /etc/kubernetes/admin.conf) and not file.path: *.pub"
         " and not process.name: (sshd* or ssh or ssh-add or login or su or sudo or passwd or chpasswd or unix_chkpwd or cron or useradd"
         " or usermod or systemd or kubectl or aws)",
         "high", "Credential Access", "T1003", "Backups."),
    Rule("Cloud metadata service asked", "A program asked the address that hands out the machine's cloud credentials.",
         f"{OUTBOUND} and destination.ip: \"169.254.169.254\" and not process.name: (cloud-init or amazon-ssm-agent or google_guest_agent"
         " or waagent or walinuxagent or python3)", "medium", "Credential Access", "T1552", "Agents of the cloud's own."),
    Rule("System log removed or replaced", "A file below /var/log, or a shell's history, was deleted or renamed by no rotator.",
         "ebpf.event: (file_delete or file_rename) and event.outcome: success"
         " and (file.path: (/var/log/* or *_history) or file.Ext.original.path: (/var/log/* or *_history))"
         f" and not process.name: (logrotate or systemd-journal* or journalctl or rsyslogd or savelog or {_SHELLS} or {_PACKAGES})",
         "medium", "Defense Evasion", "T1070", "Log tools that are not named in the query."),
    Rule("The monitor's own records touched", "A program other than the monitor or its rotator changed the event log.",
         f"{CHANGED} and file.path: (/var/monitoring/* or /etc/ebpf-monitor/* or /var/config.json)"
         " and not process.name: (ebpf-monitor or logrotate or gzip or zstd)", "high", "Defense Evasion", "T1562",
         "An operator who edits the configuration."),
    Rule("Events were lost", "Events found no room or no disk, or the kernel skipped a program: what happened then is not recorded.",
         "ebpf.event: monitor_loss and ebpf.loss.count > 0", "medium", "Defense Evasion", "T1562", "Overload."),
    Rule("Recording ended", "A monitor stopped: from then on nothing is recorded on that host.",
         "ebpf.event: monitor_stop", "medium", "Defense Evasion", "T1562", "Updates and restarts: a monitor_start follows."),
    Rule("Many refused opens", "One process was refused access to many files within a few minutes.",
         "ebpf.event: file_open and event.outcome: failure and error.code: (EACCES or EPERM)", "low", "Credential Access", "T1083",
         "Indexers that run without privileges.", threshold=("process.entity_id", 50)),
    Rule("Executable never seen before on a host", "This program was not started on this host in the two weeks before.",
         _EXEC, "low", "Execution", "T1036", "New software.", new_terms=("host.name", "process.executable")),
    Rule("Kernel module loaded", "Code was added to the kernel.", "ebpf.event: kernel_module and event.action: load_module and event.outcome: success", "medium",
         "Persistence", "T1547", "Hardware that was plugged in.", needs=("kernel_module",)),
    Rule("Another process's memory taken over", "A process attached to another one as its debugger.",
         "ebpf.event: process_ptrace and event.outcome: success and not process.name: (gdb or strace or ltrace)", "high",
         "Defense Evasion", "T1055", "Debuggers and crash handlers.", needs=("process_ptrace",)),
)


def _threat(rule: Rule) -> list[dict[str, Any]]:
    if not rule.tactic:
        return []
    tactic = _TACTICS[rule.tactic]
    return [{
        "framework": "MITRE ATT&CK",
        "tactic": {"id": tactic, "name": rule.tactic, "reference": f"{_ATTACK}/tactics/{tactic}/"},
        "technique": [{"id": rule.technique, "name": _TECHNIQUES[rule.technique],
                       "reference": f"{_ATTACK}/techniques/{rule.technique}/", "subtechnique": []}],
    }]


def _form(rule: Rule) -> dict[str, Any]:
    """What differs between the kinds of rules."""
    if rule.threshold:
        field, value = rule.threshold
        return {"type": "threshold", "threshold": {"field": [field], "value": value, "cardinality": []}}
    if rule.new_terms:
        return {"type": "new_terms", "new_terms_fields": list(rule.new_terms), "history_window_start": "now-14d"}
    return {"type": "query"}


def document(rule: Rule, index: str) -> dict[str, Any]:
    """One rule as Kibana's detection engine exports and imports it."""
    return {
        "rule_id": str(uuid.uuid5(_NAMESPACE, f"{index} {rule.name}")), "name": f"ebpf-monitor: {rule.name}",
        "description": rule.doc, "risk_score": _SCORE[rule.severity], "severity": rule.severity,
        **_form(rule), "language": "kuery", "query": rule.query, "index": [f"{index}-*"], "filters": [],
        "interval": "5m", "from": "now-10m", "to": "now", "max_signals": 100, "enabled": False, "version": 1,
        "author": ["ebpf-monitor"], "license": "", "tags": ["ebpf-monitor", "Linux"], "references": [],
        "false_positives": [rule.harmless] if rule.harmless else [], "threat": _threat(rule),
        "severity_mapping": [], "risk_score_mapping": [], "exceptions_list": [], "actions": [],
        "timestamp_override": "@timestamp",
    }


def documents(index: str) -> list[dict[str, Any]]:
    """Every rule whose events the catalogue has, for the indices `index`-*."""
    return [document(rule, index) for rule in RULES if known(rule.needs)]
