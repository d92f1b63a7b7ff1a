"""Real captures of Coinbase, played through the whole farm: what an agent reads from QuestDB is what the file says.

The expected values are computed here, straight from the file, by code that shares nothing with the farm.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.farms import CAPTURES, farmctl, processes_of

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"the recorded captures are not here: {CAPTURES}"),
]

ADVANCED = "advtrade_2026-08-09_btc-eth_part1.jsonl.gz"
EXCHANGE = "exchange_2021-04-17_10products.cryptofeed.txt.gz"

Trade = tuple[str, int, Fraction, Fraction, bool]
"""Time as text in UTC, id, price, size, whether the buyer took liquidity."""


def advanced_trades(path: Path) -> Iterator[tuple[str, Trade]]:
    """Advanced Trade, cryptofeed's newer format: the raw frame as a string in `data` of lines with `t` = recv."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            record = json.loads(line)
            frame = json.loads(record["data"]) if record["t"] == "recv" else {}
            if frame.get("channel") != "market_trades":
                continue
            for event in frame["events"]:
                for trade in event["trades"]:
                    price, size = Fraction(trade["price"]), Fraction(trade["size"])
                    maker_sold = trade["side"] == "SELL"
                    yield trade["product_id"], (trade["time"], int(trade["trade_id"]), price, size, maker_sold)


def exchange_trades(path: Path) -> Iterator[tuple[str, Trade]]:
    """Exchange, cryptofeed's older format: `receipt time: {frame}`."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            head, _, text = line.partition(": ")
            if not text.startswith("{") or not head[0].isdigit():
                continue
            frame = json.loads(text)
            if frame["type"] in ("match", "last_match"):
                price, size = Fraction(frame["price"]), Fraction(frame["size"])
                maker_sold = frame["side"] == "sell"
                yield frame["product_id"], (frame["time"], int(frame["trade_id"]), price, size, maker_sold)


def figures(trades: list[Trade]) -> dict[str, Any]:
    """What a brief must say of these trades."""
    prices = [price for _, _, price, _, _ in trades]
    volume = sum(size for _, _, _, size, _ in trades)
    bought = sum(size for _, _, _, size, is_buy in trades if is_buy)
    notional = sum(price * size for _, _, price, size, _ in trades)
    returns = [math.log(b) - math.log(a) for a, b in pairwise(prices)]
    return {
        "first_trade_id": min(number for _, number, _, _, _ in trades),
        "last_trade_id": max(number for _, number, _, _, _ in trades),
        "trades": len(trades),
        "first_price": prices[0],
        "last_price": prices[-1],
        "low": min(prices),
        "high": max(prices),
        "volume": volume,
        "notional": notional,
        "buy_volume": bought,
        "vwap": notional / volume,
        "imbalance": (2 * bought - volume) / volume,
        "realised_volatility": math.sqrt(sum(change**2 for change in returns)),
    }


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("name", "read"), [(ADVANCED, advanced_trades), (EXCHANGE, exchange_trades)], ids=["advanced", "exchange"]
)
def test_briefs_say_what_the_file_says(
    name: str, read: Callable[[Path], Iterator[tuple[str, Trade]]], tmp_path: Path
) -> None:
    capture = CAPTURES / name
    by_product: dict[str, dict[int, Trade]] = defaultdict(dict)
    for product, trade in read(capture):
        by_product[product][trade[1]] = trade
    folder = tmp_path / ".farm"
    done = farmctl(
        "dev", "--once", "--json", "--nodes", "1", "--market", str(capture), "--data-dir", str(folder), cwd=tmp_path,
        timeout_s=220,
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    assert not processes_of(folder)
    market = done.json["market"]
    assert (market["source"], market["state"]) == ("capture", "capture: the recording is over")
    briefs = {brief["product"]: brief["figures"] for brief in market["briefs"]}
    assert set(briefs) == set(by_product)
    for product, trades in by_product.items():
        ordered = sorted(trades.values(), key=lambda trade: (moment(trade[0]), trade[1]))
        compare(product, briefs[product], figures(ordered))


def compare(product: str, brief: dict[str, str], expected: dict[str, Any]) -> None:
    """Sums and prices exactly; quotients to the eight places that a brief shows; the volatility as floats go."""
    for key, value in expected.items():
        shown = Fraction(brief[key])
        if key in ("vwap", "imbalance"):
            assert abs(shown - value) <= Fraction(1, 2 * 10**8), (product, key, brief[key], float(value))
        elif key == "realised_volatility":
            assert math.isclose(float(shown), value, rel_tol=1e-6, abs_tol=1e-12), (product, brief[key], value)
        else:
            assert shown == value, (product, key, brief[key], value)
