"""The QuestDB of tests: a real one, or a skip that says what this machine lacks."""

from __future__ import annotations

import pytest

from nodeagent.market.store.runtime import MarketDataUnavailable, Runtime, obtain_runtime


async def questdb_runtime(*, offline: bool = False) -> Runtime:
    """Java and the jar. Skips the test where they are truly not to be had; `offline`: where nothing may be fetched."""
    try:
        return await obtain_runtime(offline=offline)
    except MarketDataUnavailable as absent:
        pytest.skip(f"no QuestDB on this machine: {absent}")
