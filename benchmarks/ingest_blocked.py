"""How long the feed's event loop is held up at most: the part of `benchmarks.ingest` with the largest books there are.

A venue of its own sends each of twenty products a snapshot of 46,000 levels (5 MB) at once, as after a reconnect, then
500 updates a second, and every second one more such snapshot in the stream. The feed is the real one, started by this
file, which puts a clock around everything that its event loop runs: the longest piece is what any other part of the
feed had to wait. On a busy machine that includes the time for which another process had the core, so the longest
piece's own processor time stands beside it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from nodeagent.market.feed.__main__ import main as feed_main
from nodeagent.market.model.times import to_iso
from nodeagent.market.session.websocket import FeedSession

LEVELS: Final = 46_000
UPDATES_PER_S: Final = 500
FIGURES_FILE: Final = "blocked.json"


class Venue:
    """Speaks as much Advanced Trade as a book needs."""

    def __init__(self, products: list[str]) -> None:
        self._products = products
        self._sides = {
            "bid": [f"{60_000 - n / 100:.2f}" for n in range(LEVELS // 2)],
            "offer": [f"{60_001 + n / 100:.2f}" for n in range(LEVELS // 2)],
        }

    async def attend(self, socket: ServerConnection) -> None:
        """Serve one connection."""
        await socket.recv()  # whatever it subscribes to
        sequence = 0

        async def say(kind: str, product: str, levels: list[tuple[str, str]]) -> None:
            nonlocal sequence
            now = to_iso(time.time_ns())[:26] + "Z"
            updates = ",".join(
                f'{{"side":"{side}","event_time":"{now}","price_level":"{price}","new_quantity":"0.{n % 9 + 1}0"}}'
                for n, (side, price) in enumerate(levels)
            )
            event = f'{{"type":"{kind}","product_id":"{product}","updates":[{updates}]}}'
            head = f'"channel":"l2_data","timestamp":"{now}","sequence_num":{sequence}'
            sequence += 1
            await socket.send(f'{{{head},"events":[{event}]}}')

        whole = [(side, price) for side, prices in self._sides.items() for price in prices]
        try:
            for product in self._products:
                await say("snapshot", product, whole)
            number = 0
            while True:
                number += 1
                product = self._products[number % len(self._products)]
                side = "bid" if number % 2 else "offer"
                await say("update", product, [(side, self._sides[side][number % 50 + n]) for n in range(5)])
                if number % UPDATES_PER_S == 0:
                    await say("snapshot", product, whole)
                await asyncio.sleep(1 / UPDATES_PER_S)
        except ConnectionClosed:
            return


async def serve_venue(products: list[str]) -> None:
    """Serve until killed; the address is the first line of output."""
    async with serve(Venue(products).attend, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


def run_watched_feed(config: Path) -> int:
    """The feed, under the clock. Its figures are written beside its settings, at each change."""
    figures = {"wall_ms": 0.0, "cpu_ms": 0.0, "settled_ms": 0.0, "snapshots": 0}

    def watched(run: Callable[[asyncio.Handle], None]) -> Callable[[asyncio.Handle], None]:
        def timed(handle: asyncio.Handle) -> None:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            run(handle)
            wall_ms, cpu_ms = (time.perf_counter() - wall_s) * 1e3, (time.thread_time() - cpu_s) * 1e3
            if figures["snapshots"]:  # not the start, when nothing runs that could be held up
                figures["wall_ms"] = max(figures["wall_ms"], wall_ms)
                figures["cpu_ms"] = max(figures["cpu_ms"], cpu_ms)

        return timed

    settle = FeedSession._settle

    async def timed_settle(session: FeedSession, socket: Any) -> None:
        began_s = time.perf_counter()
        figures["snapshots"] += 1
        await settle(session, socket)
        figures["settled_ms"] = max(figures["settled_ms"], (time.perf_counter() - began_s) * 1e3)
        config.with_name(FIGURES_FILE).write_text(json.dumps(figures))

    asyncio.Handle._run = watched(asyncio.Handle._run)  # type: ignore[method-assign, assignment]  # each callback and task step
    FeedSession._settle = timed_settle  # type: ignore[method-assign, assignment]  # from a snapshot's receipt to its end
    return feed_main(["--config", str(config)])


if __name__ == "__main__":
    if sys.argv[1] == "venue":
        asyncio.run(serve_venue(sys.argv[2].split(",")))
    else:
        sys.exit(run_watched_feed(Path(sys.argv[2])))
