"""Start an exchange from the command line; prints one JSON line with its addresses, then serves until a signal."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from agentfarm.errors import FarmError
from nodeagent.market.exchange.faults import parse_faults
from nodeagent.market.exchange.generated import GeneratedContent
from nodeagent.market.exchange.recorded import RecordedContent
from nodeagent.market.exchange.registry import PROTOCOLS, Protocol
from nodeagent.market.exchange.server import ExchangeServer


def main(arguments: list[str] | None = None) -> int:
    """Serve, or list products. 0 after a signal or the list, 5 when the arguments cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        if options.list_products:
            print(json.dumps(sorted(opening.product.id for opening in _content(options).openings())))
            return 0
        return asyncio.run(_serve(options))
    except FarmError as error:
        print(error, file=sys.stderr)
        return 5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nodeagent.market.exchange", description="A Coinbase or Binance of your own, on loopback."
    )
    parser.add_argument("--protocol", choices=list(Protocol), default="advanced", help="which feed to speak")
    parser.add_argument("--products", default="", help="comma-separated, BTC-USD or BTCUSDT; generated content only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--after-trades",
        default="",
        help="continue after ids, e.g. BTC-USD=120,ETH-USD=7; generated content only",
    )
    parser.add_argument("--capture", type=Path, help="send a recording instead of a generated market")
    parser.add_argument("--list-products", action="store_true", help="print the products as a JSON list, and end")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time; 0: as fast as clients take it")
    parser.add_argument("--faults", default="", help="e.g. drop=0.01,stall=0.001:5,close=2x")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--trades-per-s", type=float, default=4.0, help="per product; generated content only")
    parser.add_argument("--changes-per-s", type=float, default=140.0, help="per product; generated content only")
    return parser


async def _serve(options: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    server = ExchangeServer(
        options.protocol,
        content=_content(options),
        seed=options.seed,
        speed=options.speed,
        faults=parse_faults(options.faults),
        port=options.port,
    )
    async with server:
        products = [product.id for product in server.venue.products]
        print(json.dumps({"ws_url": server.ws_url, "rest_url": server.rest_url, "products": products}), flush=True)
        await ended.wait()
    return 0


def _content(options: argparse.Namespace) -> RecordedContent | GeneratedContent:
    if options.capture:
        if not options.capture.exists():
            raise FarmError(f"There is no recording {options.capture}.")
        return RecordedContent(options.capture)
    return GeneratedContent(
        tuple(filter(None, options.products.split(","))) or PROTOCOLS[options.protocol].products,
        options.seed,
        time.time_ns(),
        options.trades_per_s,
        options.changes_per_s,
        after_trades=_trade_ids(options.after_trades),
    )


def _trade_ids(text: str) -> dict[str, int]:
    try:
        return {name: int(number) for name, _, number in (part.partition("=") for part in text.split(",") if part)}
    except ValueError:
        raise FarmError(f"--after-trades {text!r} is not PRODUCT=ID,…") from None


if __name__ == "__main__":
    sys.exit(main())
