"""Files that survive what happens to machines: locks, writes that are whole or not at all, damaged files set aside.

Standard library only and light to import: the node daemon and agents' processes pay for it. Every call blocks, so a
caller uses a thread where it may take long (`fsync` on a busy disk).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from agentfarm.errors import Conflict

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
SET_ASIDE_MAX: Final = 3
"""Damaged files of one name that are kept for a person to look at."""
DAMAGE: Final = (ValueError, KeyError, TypeError)
"""What a parser raises for content that is not what was written."""
_HOLDER_BYTES_MAX: Final = 32

T = TypeVar("T")

# ------------------------------------------------------------------ locks


class Locked(Conflict):
    """Another process holds the lock. `holder` is its process id, as text; "unknown" when the file does not say."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"Process {holder} holds {path}.", remedy="Stop it, or use another folder.", pid=holder)
        self.holder = holder


class FileLock:
    """A lock held until `release` or the end of the process, also by a kill. The file names its holder and stays.

    `flock` locks the open file. So a forked child would hold the lock too; a program that we start does not.
    """

    def __init__(self, path: Path, *, is_waiting: bool = False) -> None:
        """Take it. is_waiting: wait until it is free; else raises Locked when it is not."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, _HOLDER_BYTES_MAX, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Locked(path, holder or "unknown") from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. Safe twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# ------------------------------------------------------------------ writes


def write_file(path: Path, data: bytes, *, mode: int = PUBLIC, is_durable: bool = True) -> None:
    """Replace a file: a reader meets the old content or the new, whole.

    mode: from the first byte, less the process's umask. is_durable: file and folder are synced, so the content survives
    a power cut once this returns. Raises OSError; then the old file stays, and nothing is left beside it.
    """
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """As `write_file`, of mode 0600: for keys, passwords, and what names them."""
    write_file(path, data, mode=PRIVATE)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: without it a power cut may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------ damaged files


def read_or_set_aside(
    path: Path,
    parse: Callable[[bytes], T],
    *,
    on_damage: Callable[[Path, Exception], None],
    damage: tuple[type[Exception], ...] = DAMAGE,
) -> T | None:
    """What `parse` makes of a file; None when there is no file, or it is damaged.

    A damaged file (`parse` raises one of `damage`) is set aside, and `on_damage` learns where and why. Raises OSError
    when the disk does not let us read, or move.
    """
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except damage as problem:
        on_damage(set_aside(path), problem)
        return None


def set_aside(path: Path) -> Path:
    """Move a damaged file to `NAME.damaged-DATE-TIME` beside it, and drop all but the newest few.

    Returns where it is.
    """
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    path.rename(target)
    for old in sorted(path.parent.glob(f"{path.name}.damaged-*"))[:-SET_ASIDE_MAX]:
        old.unlink(missing_ok=True)
    return target
