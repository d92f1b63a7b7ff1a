"""The tokens being worked on right now, in a small file mapped into memory.

When a replica dies, the daemon must know which attempts it was working on: they may have killed it. Messages that were
on their way are gone with it; what was written to a mapped file is not. It costs one store to memory an attempt.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

_SLOT: Final = struct.Struct("<Q")


class Slots:
    """One slot for each attempt that may run at once; 0 is free."""

    def __init__(self, path: Path, count: int) -> None:
        size = count * _SLOT.size
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, 0)
            os.posix_fallocate(file, 0, size)  # a hole would be a SIGBUS on a full disk
            self._map = mmap.mmap(file, size)
        finally:
            os.close(file)
        self._free = list(range(count))
        self._taken: dict[int, int] = {}

    def take(self, token: int) -> None:
        """The attempt is being worked on from here on."""
        slot = self._taken[token] = self._free.pop()
        _SLOT.pack_into(self._map, slot * _SLOT.size, token)

    def release(self, token: int) -> None:
        """It is not, any more. Does nothing for one that never was."""
        slot = self._taken.pop(token, None)
        if slot is not None:
            _SLOT.pack_into(self._map, slot * _SLOT.size, 0)
            self._free.append(slot)


def read_slots(path: Path) -> frozenset[int] | None:
    """The tokens a replica was working on when it wrote last; None when that cannot be known."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return frozenset(token for (token,) in _SLOT.iter_unpack(data[: len(data) // 8 * 8]) if token)
