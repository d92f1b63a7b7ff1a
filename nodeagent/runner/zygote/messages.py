"""What the daemon and a zygote say to each other: JSON objects, one a line.

Requests bear `id` and `op`; the answer bears the same `id`. A line without `id` is news: the exit of a replica.

    load   {name, folder, bundle, entry}   fork an agent zygote; answered when the agent is imported, or is not
    fork   {launch}                        fork a replica; answered {pid, start_ticks}
    stop   {}                              end once no child remains
    lease  {until_s}                       until when exclusive replicas may work, on CLOCK_MONOTONIC; not answered
    news   {"event": "exit", "replica_id", "pid", "status"}
"""

from __future__ import annotations

import json
from typing import Any, Final

SOCKET_NAME: Final = "socket"
LOCK_NAME: Final = "lock"
LOG_NAME: Final = "log"
LINE_BYTES_MAX: Final = 4 * 2**20


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


class LineReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`. Raises ValueError for what is not one."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ValueError("a line without an end")
        return [json.loads(line) for line in lines]
