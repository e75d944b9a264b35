"""Owns all contact with the kernel's BPF: the only package that may import bcc.

It never decodes an event and never writes the log: what it hands out is bytes, arrays and counters.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

BCC_HINT: Final = "install it with: apt install python3-bpfcc"


class BccMissing(Exception):
    """BCC's Python package cannot be used; the text says why and how to get it."""


def import_bcc() -> ModuleType:
    """The `bcc` module. Raises BccMissing if it, or the library behind it, is not there.

    PyPI has an unrelated package of the same name, which is told apart by not having `BPF`.
    """
    try:
        module = importlib.import_module("bcc")
    except ImportError as error:
        raise BccMissing(f"the Python package bcc cannot be imported ({error}); {BCC_HINT}") from error
    except OSError as error:  # from ctypes: libbcc.so.0 is not there
        raise BccMissing(f"the library of the Python package bcc cannot be loaded ({error}); {BCC_HINT}") from error
    if not hasattr(module, "BPF"):
        place = getattr(module, "__file__", None) or "an unknown place"
        raise BccMissing(f"the Python package bcc in {place} is not the BPF compiler collection; {BCC_HINT}")
    return module
