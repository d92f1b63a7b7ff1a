"""Market data on this node: its QuestDB and its feed. (Filled in below.)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodeagent.programs import RuntimeFolder
from nodeagent.settings import MarketSettings


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """What the heartbeat says of it."""

    state: str = ""
    rows: int = 0
    lag_ms: int = 0


class Market:
    """Runs beside the daemon's other parts, and never stops them."""

    def __init__(
        self, settings: MarketSettings | None, folder: Path, runtime: RuntimeFolder, on_ready: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self.capabilities: tuple[str, ...] = ()
        self.products: tuple[str, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.Event().wait()

    async def stop(self, *, with_server: bool) -> None:
        """Safe twice, and unstarted."""

    def status(self) -> MarketStatus:
        """Now."""
        return MarketStatus()
