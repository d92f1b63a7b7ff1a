"""The wait before the next try to connect: no longer than it must be when a controller that was gone listens again.

A try costs a channel with its keys; a knock costs one packet and its refusal. So tries stay rare, and knocks fill the
time between them. A door that was never shut says nothing: then the whole wait is waited.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agentfarm.backoff import backoff_s

KNOCK_EVERY_S: Final = 0.2
KNOCK_TIMEOUT_S: Final = 0.5


async def wait_or_opened(address: str, wait_s: float, jitter: float) -> None:
    """Wait for `wait_s`; less when `address` (host:port) refused connections meanwhile and takes them now.

    jitter: from 0 to 1, one number a node, so that a whole farm does not knock, and come in, at the same moments.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    is_shut = await _is_shut(address)
    while is_shut and (left_s := until - loop.time()) > 0:
        await asyncio.sleep(min(left_s, backoff_s(1, KNOCK_EVERY_S, KNOCK_EVERY_S, jitter)))
        if not await _is_shut(address):
            return
    await asyncio.sleep(until - loop.time())


async def _is_shut(address: str) -> bool:
    """Whether no program listens there, and the machine says so. Silence is no answer."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(KNOCK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return False
