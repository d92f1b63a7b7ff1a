"""Those who follow the farm's events as they are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from controller.core.transition import Event


class EventBus:
    """Committed events, for those who follow them live. A slow follower is ended, not waited for."""

    FOLLOWER_QUEUE_MAX: Final = 10_000

    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[Event | None]] = set()

    def follow(self) -> asyncio.Queue[Event | None]:
        """A queue of events as they are committed; None means that the follower was too slow or the engine stops."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(self.FOLLOWER_QUEUE_MAX)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[Event | None]) -> None:
        """Stop following. Safe twice."""
        self._followers.discard(queue)

    def publish(self, events: Sequence[Event]) -> None:
        """Called by the engine after the commit."""
        for queue in list(self._followers):
            if queue.qsize() + len(events) >= self.FOLLOWER_QUEUE_MAX:
                self._followers.discard(queue)
                queue.put_nowait(None)
                continue
            for event in events:
                queue.put_nowait(event)

    def end(self) -> None:
        """Tell every follower that no more will come."""
        for queue in self._followers:
            queue.put_nowait(None)
        self._followers.clear()
