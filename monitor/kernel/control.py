"""Owns the control lane: whole records of the rare, important events, from a BPF ring buffer or a BCC perf buffer.

It never decodes a record beyond its length word, never waits and never asks the kernel for wake-ups: the caller polls.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from monitor.kernel import bpf, import_bcc

# Linux include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ
_BUSY: Final = 1 << 31
_DISCARD: Final = 1 << 30
_LENGTH: Final = _DISCARD - 1
_HEADER_BYTES: Final = 8
_ALIGNMENT: Final = 8

# struct perf_event_mmap_page: data_head and data_tail, as indices of 64-bit words
_DATA_HEAD: Final = 1024 // 8
_DATA_TAIL: Final = 1032 // 8
_NO_WAKEUP: Final = 2**31 - 1  # events; the kernel still wakes once per half ring, and nobody listens
_CPU_KEY: Final = struct.Struct("=I")
_COVER_S: Final = 0.5


class ControlError(Exception):
    """A control lane that cannot be opened, or a ring whose content cannot be true."""


class ControlLane(Protocol):
    """Records in ring order, read first and freed later, by one thread.

    A record is the bytes the program submitted, cut to the length in its first u32 (native byte order, itself
    included); one whose length word is impossible comes uncut, the decoder says what is wrong with it.
    """

    def read(self, limit: int) -> list[bytes]:
        """Up to `limit` records that were not read yet; never frees them, never waits."""

    def position(self) -> int:
        """Opaque position behind the last record that `read` returned."""

    def release(self, position: int) -> None:
        """Everything before `position`, which `position()` gave, may be overwritten by the kernel."""

    def complete(self) -> bool:
        """Did the last `read` end at the end? No: a record that is still being written hides those behind it."""

    def fill(self) -> float:
        """How full the ring is, 0 to 1, with what was read and not released; of several rings the fullest."""

    def close(self) -> None:
        """Give back what the lane holds; a second call does nothing. The map's descriptor stays the caller's."""


def cut_to_length(raw: bytes) -> bytes:
    """`raw` without what follows the record: perf pads samples with 0 to 7 bytes. Uncut if its length is impossible."""
    length = int.from_bytes(raw[:4], sys.byteorder)
    return raw[:length] if 4 <= length <= len(raw) else raw


class RingBufLane:
    """The control lane in a BPF_MAP_TYPE_RINGBUF (Linux 5.8), read through its memory without a system call.

    Layout, Linux kernel/bpf/ringbuf.c: a page with the consumer position (writable), a page with the producer position
    and the data twice in a row (read-only), so that a record that wraps around is contiguous. What a reader did not
    release is seen by the next one: opening continues at the consumer position in the map.
    """

    def __init__(self, map_fd: int) -> None:
        """Map the ring. Raises ControlError if the map is no ring buffer or its positions are impossible, BpfError if
        it cannot be mapped."""
        info = bpf.map_info(map_fd)
        if info.type != bpf.MAP_TYPE_RINGBUF:
            raise ControlError(f"map {info.name!r} has type {info.type}, a ring buffer is {bpf.MAP_TYPE_RINGBUF}")
        self._name = info.name
        self._size = info.max_entries
        self._consumer_page = _map(map_fd, mmap.PAGESIZE, 0, mmap.PROT_READ | mmap.PROT_WRITE)
        try:
            self._ring = _map(map_fd, mmap.PAGESIZE + 2 * self._size, mmap.PAGESIZE, mmap.PROT_READ)
        except bpf.BpfError:
            self._consumer_page.close()
            raise
        # views of whole words: one load or store each, never torn
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._ring).cast("Q")
        self._headers = memoryview(self._ring)[mmap.PAGESIZE :].cast("I")
        self._next = self._released = self._consumer[0]
        self._complete = True
        unread = self._producer[0] - self._released
        if self._released % _ALIGNMENT or not 0 <= unread <= self._size:
            consumer, producer = self._released, self._producer[0]
            self.close()
            raise ControlError(f"ring {self._name!r}: consumer at {consumer}, producer at {producer}: not possible")

    def read(self, limit: int) -> list[bytes]:
        """See ControlLane. Stops at a record that a program is still writing (BUSY), leaves out discarded ones."""
        records: list[bytes] = []
        head, mask = self._producer[0], self._size - 1
        while self._next < head and len(records) < limit:
            header = self._headers[(self._next & mask) // 4]
            if header & _BUSY:
                self._complete = False
                return records
            length = header & _LENGTH
            behind = self._next + (length + _HEADER_BYTES + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
            if behind > head:
                raise ControlError(f"ring {self._name!r}: byte {self._next}: a record of {length} bytes passes {head}")
            if not header & _DISCARD:
                at = mmap.PAGESIZE + (self._next & mask) + _HEADER_BYTES
                records.append(cut_to_length(self._ring[at : at + length]))
            self._next = behind
        self._complete = True
        return records

    def position(self) -> int:
        """See ControlLane."""
        return self._next

    def complete(self) -> bool:
        """See ControlLane."""
        return self._complete

    def release(self, position: int) -> None:
        """See ControlLane. Raises ValueError for a position that was not read yet or is released already."""
        if not self._released <= position <= self._next:
            raise ValueError(f"position {position} is not in {self._released}..{self._next}")
        self._released = position
        self._consumer[0] = position

    def fill(self) -> float:
        """See ControlLane."""
        return (self._producer[0] - self._released) / self._size

    def close(self) -> None:
        """See ControlLane."""
        for view in (self._consumer, self._producer, self._headers):
            view.release()
        self._consumer_page.close()
        self._ring.close()


class PerfLane:
    """The control lane in BCC perf buffers, one ring for each CPU, for kernels without the BPF ring buffer.

    The order is that of each CPU; CPUs follow each other. Perf frees a sample when it is read: what was read and is
    not in the log yet dies with the process, and the next reader begins with empty rings, because they are the
    process's own. `lost` counts what the rings themselves reported as lost, which is less than what was lost.
    A CPU that comes online later gets its ring within a second; what programs submit there before is refused.
    """

    def __init__(self, map_fd: int, online: Callable[[], Iterable[int]], pages: int) -> None:
        """Open a ring of `pages` (a power of 2) for each CPU that is `online` and put it into the perf event array `map_fd`.
        Raises BccMissing, ControlError or BpfError; then no ring is left open."""
        bcc = import_bcc()
        self._lib: Any = bcc.lib
        self._options: Any = getattr(bcc.libbcc, "bcc_perf_buffer_opts", None)
        self._map_fd = os.dup(map_fd)  # a map forgets the rings that were put in by a descriptor that is closed
        self._closed = False
        self._online = online
        self._bytes = pages * mmap.PAGESIZE
        self._pending: deque[bytes] = deque()
        self._returned = 0
        self.lost = 0
        self._callbacks = (bcc.libbcc._RAW_CB_TYPE(self._on_sample), bcc.libbcc._LOST_CB_TYPE(self._on_lost))
        self._readers: dict[int, int] = {}  # CPU: struct perf_reader *
        self._pages: dict[int, tuple[mmap.mmap, memoryview]] = {}
        try:
            for cpu in online():
                self._open(cpu)
        except (ControlError, bpf.BpfError):
            self.close()
            raise
        self._gather()

    def _gather(self) -> None:
        self._reader_array: Any = (ctypes.c_void_p * len(self._readers))(*self._readers.values())
        self._covered = time.monotonic()

    def _cover(self) -> None:
        """Opens rings for the CPUs that have come since the last look."""
        if time.monotonic() - self._covered < _COVER_S:
            return
        for cpu in set(self._online()) - self._readers.keys():
            with contextlib.suppress(ControlError, bpf.BpfError):  # it is gone again, or not ready: the next look
                self._open(cpu)
        self._gather()

    def _open(self, cpu: int) -> None:
        pages = self._bytes // mmap.PAGESIZE
        if self._options is not None:
            options = self._options(pid=-1, cpu=cpu, wakeup_events=_NO_WAKEUP)
            reader = self._lib.bpf_open_perf_buffer_opts(*self._callbacks, None, pages, ctypes.byref(options))
        else:  # an older BCC, which wakes up for every sample
            reader = self._lib.bpf_open_perf_buffer(*self._callbacks, None, -1, cpu, pages)
        if not reader:
            raise ControlError(f"the perf ring of CPU {cpu} with {pages} pages cannot be opened")
        self._readers[cpu] = reader
        fd = self._lib.perf_reader_fd(reader)
        os.set_inheritable(fd, False)
        # a second view of BCC's ring, for its fill level; perf wants the same size
        page = _map(fd, mmap.PAGESIZE + self._bytes, 0, mmap.PROT_READ)
        bpf.map_update(self._map_fd, _CPU_KEY.pack(cpu), _CPU_KEY.pack(fd))
        self._pages[cpu] = page, memoryview(page).cast("Q")

    def _on_sample(self, _cookie: object, data: int, size: int) -> None:
        # nothing here may raise: ctypes would only print it
        self._pending.append(ctypes.string_at(data, size))

    def _on_lost(self, _cookie: object, count: int) -> None:
        self.lost += count

    def read(self, limit: int) -> list[bytes]:
        """See ControlLane. BCC can only empty whole rings, so records beyond `limit` wait in memory, and rings are
        not touched before those are gone: at most one filling of all rings waits."""
        if not self._pending:
            self._cover()
            self._lib.perf_reader_consume(len(self._readers), self._reader_array)
        count = min(limit, len(self._pending))
        self._returned += count
        return [cut_to_length(self._pending.popleft()) for _ in itertools.repeat(None, count)]

    def position(self) -> int:
        """See ControlLane."""
        return self._returned

    def complete(self) -> bool:
        """See ControlLane. A ring of its own for each CPU: nothing hides anything."""
        return True

    def release(self, position: int) -> None:
        """Does nothing but check, perf freed the samples when they were read. Raises ValueError for a position that was
        not read yet."""
        if not 0 <= position <= self._returned:
            raise ValueError(f"position {position} is not in 0..{self._returned}")

    def fill(self) -> float:
        """See ControlLane."""
        return max((page[_DATA_HEAD] - page[_DATA_TAIL] for _, page in self._pages.values()), default=0) / self._bytes

    def close(self) -> None:
        """See ControlLane. Programs that submit from now on get ENOENT."""
        if self._closed:
            return
        self._closed = True
        for cpu, (mapping, page) in self._pages.items():
            bpf.map_delete(self._map_fd, _CPU_KEY.pack(cpu))
            page.release()
            mapping.close()
        for reader in self._readers.values():
            self._lib.perf_reader_free(reader)
        self._readers.clear()
        self._pages.clear()
        self._pending.clear()
        os.close(self._map_fd)


def _map(fd: int, size: int, offset: int, protection: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
    except OSError as error:
        raise bpf.BpfError("mmap", error.errno or 0, f"descriptor {fd}, {size} bytes at {offset}") from None
