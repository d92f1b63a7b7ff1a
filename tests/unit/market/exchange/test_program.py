"""`python -m nodeagent.market.exchange`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import httpx


async def test_program_tells_its_addresses_serves_and_ends_on_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "nodeagent.market.exchange", "--protocol", "exchange", "--products", "BTC-USD,SOL-USD", "--seed", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            said = json.loads(await process.stdout.readline())
        assert said["products"] == ["BTC-USD", "SOL-USD"]
        assert said["ws_url"].startswith("ws://127.0.0.1:")
        async with httpx.AsyncClient(trust_env=False) as http:
            products = (await http.get(f"{said['rest_url']}/products")).json()
        assert [product["id"] for product in products] == ["BTC-USD", "SOL-USD"]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_program_names_what_is_wrong_with_its_arguments() -> None:
    for arguments, problem in ((("--faults", "melt=1"), b"melt"), (("--capture", "/none"), b"/none")):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nodeagent.market.exchange", *arguments, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 5
        assert problem in said
