"""Ports on loopback: the one asked for, else the next that is free."""

from __future__ import annotations

import socket
from typing import Final

from agentfarm.errors import Conflict
from agentfarm.limits import GATEWAY_PORT

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = GATEWAY_PORT
TRIED_MAX: Final = 100


def choose_port(asked: int | None) -> int:
    """The gateway's port: `asked` or a Conflict, or from DEFAULT_PORT on the first that is free."""
    if asked is not None:
        if is_free(asked):
            return asked
        raise Conflict(
            f"Port {asked} is taken by another program.",
            remedy="Give another with --port, or none: then the first free one from 8600 on is used.",
            port=asked,
        )
    for port in range(DEFAULT_PORT, DEFAULT_PORT + TRIED_MAX):
        if is_free(port):
            return port
    raise Conflict(f"No port from {DEFAULT_PORT} to {DEFAULT_PORT + TRIED_MAX - 1} is free.", remedy="Use --port.")


def remembered_port(before: int | None) -> int:
    """A port that no person types: the one used before if it is free, so that addresses stay, else any."""
    if before is not None and is_free(before):
        return before
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        with socket.create_server((LOOPBACK, port)):
            return True
    except OSError:
        return False
