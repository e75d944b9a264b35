"""Man pages and shell completion, made from the commands themselves:  python scripts/command_files.py SHARE  writes below SHARE
(man/man1, bash-completion, zsh, fish). One page for the program and one for each command, in man(7)'s macros.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import click
from click import shell_completion

from monitor import __version__
from monitor.cli import main as program

NAME = "ebpf-monitor"
COMPLETIONS = {
    "bash": f"bash-completion/completions/{NAME}",
    "zsh": f"zsh/vendor-completions/_{NAME}",
    "fish": f"fish/vendor_completions.d/{NAME}.fish",
}
EXIT = """.SH EXIT STATUS
0; 1 failure, and findings of verify and doctor; 64 usage; 75 another monitor runs; 77 a capability is missing; 78 configuration.
status: 0 running and balanced, 1 not balanced, 3 not running.
.SH FILES
.nf
/etc/ebpf-monitor/config.json  /var/monitoring/events  /usr/share/doc/ebpf-monitor
.fi
"""


def escaped(text: str) -> str:
    """Text as roff takes it: no line is a request, no character an escape."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in lines)


def paragraphs(text: str) -> str:
    """The help text: blocks that begin with a \\b line keep their line breaks."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.strip("\n") for line in block.splitlines()]
        if lines and lines[0].strip() == "\b":
            found.append(".PP\n.nf\n" + escaped(textwrap.dedent("\n".join(lines[1:]))) + "\n.fi")
        else:
            found.append(".PP\n" + escaped(" ".join(line.strip() for line in lines)))
    return "\n".join(found)


def options(command: click.Command, context: click.Context) -> str:
    """Each option with its help."""
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    return "".join(f".TP\n.B {escaped(names)}\n{escaped(text) or '.'}\n" for names, text in records)


def page(command: click.Command, context: click.Context) -> str:
    """The man page of the group or of one command."""
    title = context.command_path.replace(" ", "-")
    parts = [
        f'.TH "{title.upper()}" "1" "" "{NAME} {__version__}" "User Commands"',
        f".SH NAME\n{escaped(title)} \\- {escaped(command.get_short_help_str(200).rstrip('.'))}",
        f".SH SYNOPSIS\n.B {escaped(context.command_path)}\n{escaped(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION\n" + paragraphs((command.help or "").strip()),
        ".SH OPTIONS\n" + options(command, context),
    ]
    if isinstance(command, click.Group):
        rows = [(name, command.commands[name].get_short_help_str(200)) for name in command.list_commands(context)]
        parts.append(".SH COMMANDS\n" + "".join(f".TP\n.BR {NAME}-{n} (1)\n{escaped(t)}\n" for n, t in rows))
    if command.epilog:
        parts.append(".SH NOTES\n" + paragraphs(command.epilog))
    return "\n".join(part.rstrip("\n") for part in parts) + "\n" + EXIT


def pages() -> dict[str, str]:
    """File name to text of every page."""
    context = click.Context(program, info_name=NAME, **program.context_settings)
    found = {f"{NAME}.1": page(program, context)}
    for name in program.list_commands(context):
        command = program.commands[name]
        found[f"{NAME}-{name}.1"] = page(
            command, click.Context(command, info_name=name, parent=context, **program.context_settings)
        )
    return found


def completion(shell: str) -> str:
    """The completion script of a shell: it asks the program itself at each Tab."""
    kind = shell_completion.get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click completes for no shell {shell}")
    made = kind(program, {}, NAME, f"_{NAME}_COMPLETE".replace("-", "_").upper())
    return shell_completion.ShellComplete.source(made)  # BashComplete's own asks the bash that is here for its version


def main() -> int:
    """Writes all of them."""
    share = Path(sys.argv[1])
    for name, text in pages().items():
        target = share / "man/man1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for shell, where in COMPLETIONS.items():
        target = share / where
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(completion(shell), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
