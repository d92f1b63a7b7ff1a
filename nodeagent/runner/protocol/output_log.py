"""The file that a replica's standard output and error go to.

Processes write to the file itself, not to a pipe: nothing is lost when the replica is killed, native code and children
need no help, and no reader has to keep up. So rotation replaces the file under the descriptors, from the control
thread. A child that was started before a rotation goes on in the rotated file; the daemon keeps that one bounded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

KEPT_FILES: Final = 2
"""Rotated files kept beside the current one: log.1 is the newest."""
_MODE: Final = 0o640
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class OutputLog:
    """File descriptors 1 and 2 of this process, in a file of at most about `bytes_max`."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._redirect()

    def rotate_if_large(self) -> None:
        """Called now and then. A full disk or a vanished folder must not hurt the agent: then it stays as it is."""
        try:
            if os.fstat(1).st_size > self._bytes_max:
                rotate(self._path)
                self._redirect()
        except OSError:
            return

    def _redirect(self) -> None:
        file = os.open(self._path, _FLAGS, _MODE)
        for stream in (1, 2):
            os.dup2(file, stream, inheritable=True)
        os.close(file)


def rotate(path: Path) -> None:
    """Shift path to path.1, path.1 to path.2, and forget the oldest."""
    for number in range(KEPT_FILES - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))
