"""Unix sockets in folders of any depth.

The kernel takes at most 107 bytes for a socket's path; data folders may be deeper. So the folder is opened and the
socket named through `/proc/self/fd`, which is always short.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """A listening, non-blocking socket at `path`, readable by this user alone; it appears only once it can be used."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _short(staged) as name:
            with suppress(FileNotFoundError):
                staged.unlink()
            server.bind(name)
        staged.chmod(0o600)
        server.listen(BACKLOG)
        staged.rename(path)
    except BaseException:
        server.close()
        raise
    return server


def connect(path: Path) -> socket.socket:
    """A connected, non-blocking socket. Raises OSError when no process listens there."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _short(path) as name:
            client.connect(name)
    except BaseException:
        client.close()
        raise
    return client


@contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
