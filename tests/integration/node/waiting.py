"""Waiting for what other processes do: nothing announces it to us, so it is looked for, against a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LOOK_EVERY_S = 0.02
DEADLINE_S = 60.0  # as long as any machine may need: it only says when to give up


async def until(
    claim: Callable[[], Any], deadline_s: float = DEADLINE_S, *, look_every_s: float = LOOK_EVERY_S
) -> None:
    """Return once the claim holds. Raises TimeoutError when it does not in time. Look less often where a look costs."""
    async with asyncio.timeout(deadline_s):
        while not claim():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(look_every_s)
