"""A small farm and a client that speaks HTTP to it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.gateway.small_farm import TOKEN, SmallFarm


@pytest.fixture
async def small() -> SmallFarm:
    farm = SmallFarm()
    await farm.start()
    return farm


@pytest.fixture
async def http(small: SmallFarm) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(small.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://farm", headers=headers) as client:
        yield client
