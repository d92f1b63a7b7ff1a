"""Politeness towards a venue: how fast it is spoken to, and who is no venue at all."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit


class Pace:
    """Lets turns pass that cost at most `per_s` a second on average; `burst` of them at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst_s = max(1.0, burst) / per_s
        self._next_s = 0.0

    async def turn(self, cost: float = 1.0) -> None:
        """Return when it is one's turn."""
        now_s = time.monotonic()
        self._next_s = max(self._next_s, now_s - self._burst_s) + cost / self._per_s
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)


def is_local(url: str) -> bool:
    """Whether an address is this machine, which no proxy should be asked for."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
