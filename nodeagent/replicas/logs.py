"""Reading replicas' logs: the last lines, and what comes after them, across rotations.

The replica writes and rotates (`nodeagent/runner/protocol/output_log.py`); here it is only read, and bounded where its
children keep writing to a file that was rotated away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO, Final

from agentfarm.errors import NotFound
from nodeagent.runner.protocol.output_log import KEPT_FILES

BLOCK_BYTES: Final = 64 * 1024
TAIL_LINES_MAX: Final = 10_000
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer line is passed on in pieces."""
FOLLOW_POLL_S: Final = 0.2
ROTATED_BYTES_MAX: Final = 64 * 2**20


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, oldest first; none when there is no log."""
    data = _tail(path, count)
    return data.decode(errors="replace").splitlines()


async def replica_log(path: Path | None, tail_lines: int, *, follow: bool) -> AsyncGenerator[bytes]:
    """The log of a replica, as the controller asks for it. Raises NotFound, saying why there is none."""
    if path is None:
        raise NotFound("The replica is not on this node any more.")
    try:
        async with aclosing(read_log(path, tail_lines, follow=follow)) as lines:
            async for some in lines:
                yield some
    except FileNotFoundError:
        raise NotFound("It has written nothing yet.") from None


async def read_log(path: Path, tail_lines: int, *, follow: bool) -> AsyncGenerator[bytes]:
    """Whole lines, several at a time: first the last `tail_lines`, then, if asked, every new one without end.

    Raises FileNotFoundError when there is no log.
    """
    file: BinaryIO = path.open("rb")
    try:
        end = file.seek(0, os.SEEK_END)
        whole, rest = _whole_lines(_tail(path, min(tail_lines, TAIL_LINES_MAX), end))
        if rest and not follow:
            whole, rest = whole + rest + b"\n", b""
        if whole:
            yield whole
        if not follow:
            return
        while True:
            data = file.read(BLOCK_BYTES)
            if not data:
                newer = _replaced(path, file)
                if newer is not None:
                    data = file.read(BLOCK_BYTES)  # what came between our last look and the rotation
                    if not data:
                        file.close()
                        file = newer
                        continue
                    newer.close()
                else:
                    await asyncio.sleep(FOLLOW_POLL_S)
                    continue
            whole, rest = _whole_lines(rest + data)
            if whole:
                yield whole
    finally:
        file.close()


def bound_rotated(path: Path) -> None:
    """Empty rotated files that a process still writes to without end."""
    for number in range(1, KEPT_FILES + 1):
        old = path.with_name(f"{path.name}.{number}")
        try:
            if old.stat().st_size > ROTATED_BYTES_MAX:
                os.truncate(old, 0)
        except OSError:
            continue


def _replaced(path: Path, file: BinaryIO) -> BinaryIO | None:
    """The log's new file, if `file` was rotated away; else None; one that was emptied is read from its start."""
    try:
        status, opened = path.stat(), os.fstat(file.fileno())
        if status.st_ino != opened.st_ino:
            return path.open("rb")
        if status.st_size < file.tell():
            file.seek(0)
    except OSError:
        return None
    return None


def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
    at = data.rfind(b"\n") + 1
    if at:
        return data[:at], data[at:]
    if len(data) > LINE_BYTES_MAX:
        return data + b"\n", b""
    return b"", data


def _tail(path: Path, count: int, end: int | None = None) -> bytes:
    """The last `count` lines up to position `end`, going back into rotated files where needed."""
    tail = b""
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))]
    for name in names:
        try:
            with name.open("rb") as file:
                tail = _tail_of(file, count + 1 - tail.count(b"\n"), end) + tail
        except OSError:
            break
        end = None
        if tail.count(b"\n") > count:
            break
    lines = tail.splitlines(keepends=True)[-count:] if count else []
    return b"".join(lines)


def _tail_of(file: BinaryIO, count: int, end: int | None) -> bytes:
    at = file.seek(0, os.SEEK_END) if end is None else end
    data = b""
    while at > 0 and data.count(b"\n") < count and len(data) < TAIL_LINES_MAX * 1024:
        step = min(BLOCK_BYTES, at)
        at -= step
        file.seek(at)
        data = file.read(step) + data
    return data
