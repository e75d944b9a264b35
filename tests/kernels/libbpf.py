"""The kernel's types as C text, by libbpf's own printer: a second reader of BTF, to check ours against.

Owns the few calls of libbpf.so.1 (bpf/btf.h) that this takes.
"""

from __future__ import annotations

import ctypes

_PRINT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_STRUCT = 4  # BTF_KIND_STRUCT


def as_c(btf: bytes, structs: list[str]) -> str:
    """C declarations of `structs` and of all that they contain. Raises LookupError for one that is not there."""
    library, libc = ctypes.CDLL("libbpf.so.1"), ctypes.CDLL(None)
    for name in ("btf__new", "btf_dump__new"):
        getattr(library, name).restype = ctypes.c_void_p
    text: list[str] = []

    def keep(_context: object, form: bytes, arguments: int) -> None:
        buffer = ctypes.create_string_buffer(65536)
        libc.vsnprintf(buffer, ctypes.c_size_t(len(buffer)), form, ctypes.c_void_p(arguments))
        text.append(buffer.value.decode())

    callback = _PRINT(keep)
    loaded = library.btf__new(btf, ctypes.c_uint32(len(btf)))
    if not loaded:
        raise ValueError("libbpf cannot read this BTF")
    dump = ctypes.c_void_p(library.btf_dump__new(ctypes.c_void_p(loaded), callback, None, None))
    try:
        for name in structs:
            number = library.btf__find_by_name_kind(ctypes.c_void_p(loaded), name.encode(), _STRUCT)
            if number < 0:
                raise LookupError(f"no struct {name}")
            library.btf_dump__dump_type(dump, number)
    finally:
        library.btf_dump__free(dump)
        library.btf__free(ctypes.c_void_p(loaded))
    return "".join(text)
