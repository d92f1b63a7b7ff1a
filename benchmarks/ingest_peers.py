"""The peers of `benchmarks.ingest`: run in an environment of their own, on the frames we hand them.

This file is both sides: imported by the benchmark it starts the peers, and started by `uv run` with a peer's name and
a file of frames it is the peer's side, where nothing of ours can be imported. Both peers get the frames exactly as
their own reader hands them over, and build their books as they do for their users.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

PEERS = {
    "cryptofeed 2.4.1": ("cryptofeed==2.4.1", "book; no validation, no gap check"),
    "ccxt.pro 4.5.90": ("ccxt==4.5.90", "book, trade cache; no gap check"),
}
TIMEOUT_S = 300
REPEAT = 10
BIG_FRAME_BYTES = 100_000


@dataclass(frozen=True)
class PeerResult:
    """A peer's figures, or why there are none."""

    name: str
    does: str
    frames_per_s: float = 0.0
    levels_per_s: float = 0.0
    problem: str = ""


def measure_peer(name: str, frames: list[bytes]) -> PeerResult:
    """Run a peer on the frames. A peer that cannot be had here is reported, not hidden."""
    requirement, does = PEERS[name]
    with tempfile.NamedTemporaryFile("wb", suffix=".ndjson") as file:
        file.write(b"\n".join(frames))
        file.flush()
        command = ["uv", "run", "--no-project", "--python", sys.executable, "--with", requirement, "python", __file__]
        try:
            run = subprocess.run(
                [*command, name, file.name], check=False, capture_output=True, text=True, timeout=TIMEOUT_S
            )
            answer = json.loads(run.stdout.strip().splitlines()[-1]) if run.returncode == 0 else None
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            return PeerResult(name, does, problem=f"could not be measured: {error}")
    if answer is None:
        return PeerResult(name, does, problem=f"could not be measured: {run.stderr.strip().splitlines()[-1:]}")
    return PeerResult(name, does, answer["frames_per_s"], answer["levels_per_s"])


def _peer_main(name: str, path: Path) -> None:
    """The peer's side."""
    frames = [line.decode() for line in path.read_bytes().split(b"\n")]
    handle = _cryptofeed_handler() if name.startswith("cryptofeed") else _ccxt_handler()
    updates = [frame for frame in frames if len(frame) <= BIG_FRAME_BYTES]
    levels = sum(map(_levels, updates))
    times = sorted(_replay(frames, handle) for _ in range(REPEAT))
    took = times[len(times) // 2]
    print(json.dumps({"frames_per_s": len(updates) / took, "levels_per_s": levels / took}))


def _replay(frames: list[str], handle: Any) -> float:
    """All frames in order, so that the books begin from their snapshots; CPU seconds of the updates, as ours."""
    took = 0.0
    for is_update, group in groupby(frames, lambda frame: len(frame) <= BIG_FRAME_BYTES):
        chosen = list(group)
        started = time.process_time()
        for frame in chosen:
            handle(frame)
        if is_update:
            took += time.process_time() - started
    return took


def _levels(frame: str) -> int:
    message = json.loads(frame)
    return sum(len(event.get("updates", ())) for event in message["events"]) if message["channel"] == "l2_data" else 0


def _cryptofeed_handler() -> Any:
    """Its message handler, with callbacks that do nothing. Frames of channels it does not know cost it a log call."""
    import logging  # noqa: PLC0415 - the peer's side runs in another environment

    from cryptofeed.defines import L2_BOOK, TRADES  # type: ignore[import-not-found]  # noqa: PLC0415
    from cryptofeed.exchanges import Coinbase  # type: ignore[import-not-found]  # noqa: PLC0415
    from cryptofeed.symbols import Symbols  # type: ignore[import-not-found]  # noqa: PLC0415

    async def nothing(data: Any, receipt_timestamp: float) -> None:
        """A user's callback."""

    logging.disable(logging.CRITICAL)
    Symbols.set(Coinbase.id, {"BTC-USD": "BTC-USD", "ETH-USD": "ETH-USD"}, {"instrument_type": {}})
    feed = Coinbase(
        symbols=["BTC-USD", "ETH-USD"], channels=[L2_BOOK, TRADES], callbacks={L2_BOOK: nothing, TRADES: nothing}
    )

    def handle(frame: str) -> None:
        with suppress(StopIteration):
            feed.message_handler(frame, None, 1786309548.0).send(None)

    return handle


def _ccxt_handler() -> Any:
    """`handle_message` behind the `json.loads` of its client."""
    import asyncio  # noqa: PLC0415 - the peer's side runs in another environment

    import ccxt.pro  # type: ignore[import-not-found]  # noqa: PLC0415

    exchange = ccxt.pro.coinbase()
    markets = [
        {**exchange.safe_market_structure(), "id": name, "symbol": name.replace("-", "/"), "spot": True}
        for name in ("BTC-USD", "ETH-USD")
    ]
    exchange.set_markets(markets)

    async def connect() -> Any:
        return exchange.client("wss://advanced-trade-ws.coinbase.com")

    client = asyncio.new_event_loop().run_until_complete(connect())

    def handle(frame: str) -> None:
        exchange.handle_message(client, json.loads(frame))

    return handle


if __name__ == "__main__":
    _peer_main(sys.argv[1], Path(sys.argv[2]))
