"""A child that compiles: reads a job of compile.py, writes what BCC made of it to standard output. The compiler's 126 MB leave
with it.

Owns what is asked of BCC. Imports as little as can be, for each child of each first start waits for it; never loads, attaches or
pins.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

from monitor.kernel import BccMissing, bpf, import_bcc

_LOAD_ADDRESS, _PSEUDO_MAP_FD = 0x18, 1


def compiled(job: dict[str, Any]) -> dict[str, Any]:
    """The maps of the text with their attributes, and the wanted programs as base64; see compile.compiled."""
    os.environ["BCC_KERNEL_SOURCE"] = job["tree"]
    module = import_bcc().BPF(text=job["text"], cflags=job["flags"])
    maps: list[list[Any]] = []
    index: dict[int, int] = {}
    for name in job["maps"]:
        about = bpf.map_info(module[name].map_fd)
        index[module[name].map_fd] = len(maps)
        maps.append([name, about.type, about.key_size, about.value_size, about.max_entries, about.flags])
    programs = {}
    for name in job["programs"]:
        code = bytearray(module.dump_func(name.encode()))
        for at in range(0, len(code), 8):
            if code[at] == _LOAD_ADDRESS and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
                descriptor = int.from_bytes(code[at + 4 : at + 8], "little")
                code[at + 4 : at + 8] = index[descriptor].to_bytes(4, "little")
        programs[name] = base64.b64encode(code).decode()
    return {"maps": maps, "programs": programs}


def main() -> None:
    """Argument: the job's file. What goes wrong is said on standard error, with exit status 1."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        json.dump(compiled(job), sys.stdout)
    except BccMissing as error:
        raise SystemExit(str(error)) from error
    except Exception as error:  # BCC raises bare Exception
        raise SystemExit(f"BCC could not compile the programs: {error}") from error


if __name__ == "__main__":
    main()
