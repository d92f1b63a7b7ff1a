"""A seeded market: prices walk, books stay consistent, trades take what rests at the best price.

Everything follows from the seed, the products and `start_ns`: the same arguments give the same story. Prices move by
consumption: a taker eats the best level, makers quote around the new middle. So a trade's price always was the best
price.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from nodeagent.market.exchange.events import (
    NS,
    Batch,
    BookBatch,
    MakerSide,
    Opening,
    Product,
    Side,
    TickerBatch,
    TradeBatch,
    VenueTrade,
    assets_of,
)

STEP_NS: Final = 50_000_000
"""Books change every 50 ms, as Exchange's level2_batch does."""
HISTORY_TRADES: Final = 300
KNOWN_PRICES: Final = {"BTC": 65_000, "ETH": 1_900, "SOL": 150, "LTC": 80}
SIZE_UNIT: Final = Decimal("0.00000001")
FAR_REMOVAL_SHARE: Final = 0.02
"""Removals of levels that are not there: common on the real feeds."""


@dataclass(frozen=True, slots=True)
class GeneratedContent:
    """`trades_per_s` and `changes_per_s` are per product, on average; trades come in groups of one instant at times."""

    products: Sequence[str]
    seed: int
    start_ns: int
    trades_per_s: float = 4.0
    changes_per_s: float = 140.0
    depth: int = 60
    trade_group_ms: int = 250
    """Trades come this often (Advanced Trade batches 250 ms)."""
    is_finite: bool = False
    after_trades: Mapping[str, int] = field(default_factory=dict)
    """Per product, the trade id after which to continue, for clients that remember an earlier story."""

    def openings(self) -> list[Opening]:
        """Books around a price that follows from the product's name, and some past trades."""
        return [maker.opening() for maker in self._makers()]

    def batches(self) -> Iterator[Batch]:
        """Endless."""
        makers = self._makers()
        for maker in makers:
            maker.opening()
        now_ns = self.start_ns
        while True:
            now_ns += STEP_NS
            for maker in makers:
                yield from maker.step(now_ns)

    def _makers(self) -> list[_Maker]:
        return [_Maker(self, name, random.Random(f"{self.seed}/{name}")) for name in self.products]  # noqa: S311


class _Maker:
    """One product's market. Prices are counted in ticks of 0.01."""

    def __init__(self, content: GeneratedContent, name: str, chance: random.Random) -> None:
        self._content = content
        self._chance = chance
        self.product = Product(name)
        price = KNOWN_PRICES.get(assets_of(name)[0])
        self._middle = (price or chance.randint(1, 500)) * 100
        self._sizes: dict[Side, dict[int, Decimal]] = {"bid": {}, "offer": {}}
        first_id = chance.randint(10**6, 10**9)
        self._trade_id = content.after_trades.get(name, first_id)
        self._waiting: list[VenueTrade] = []
        self._steps = 0
        self._volume = Decimal(chance.randint(1000, 5000))

    def opening(self) -> Opening:
        """Quote the first book and make up some past."""
        content, chance = self._content, self._chance
        for distance in range(1, content.depth + 1):
            self._sizes["bid"][self._middle - distance] = self._size()
            self._sizes["offer"][self._middle + distance] = self._size()
        times = sorted(content.start_ns - chance.randint(1, 60_000_000) * 1000 for _ in range(HISTORY_TRADES))
        trades = []
        for time_ns in times:
            maker_side: MakerSide = chance.choice(("BUY", "SELL"))
            ticks = self._middle + (-1 if maker_side == "BUY" else 1)
            trades.append(self._trade(ticks, self._size(), maker_side, time_ns))
        return Opening(
            self.product,
            bids={_price(ticks): str(size) for ticks, size in self._sizes["bid"].items()},
            asks={_price(ticks): str(size) for ticks, size in self._sizes["offer"].items()},
            trades=trades,
            ticker=self._ticker_fields(trades[-1].price),
            time_ns=content.start_ns,
        )

    def step(self, now_ns: int) -> Iterator[Batch]:
        """50 ms of this market."""
        content, chance = self._content, self._chance
        changed: dict[tuple[Side, int], Decimal] = {}
        before = self._trade_id
        for _ in range(_draw(chance, content.trades_per_s * STEP_NS / NS)):
            self._take(now_ns - chance.randrange(1, STEP_NS // 1000) * 1000, changed)
        for _ in range(_draw(chance, content.changes_per_s * STEP_NS / NS)):
            self._quote(changed)
        self._refill(changed)
        changes = tuple((side, _price(ticks), str(size)) for (side, ticks), size in changed.items())
        if changes or chance.random() < 0.02:
            yield BookBatch(self.product.id, changes, now_ns - 20_000_000, now_ns)
        self._steps += 1
        due = self._steps * STEP_NS // (content.trade_group_ms * 1_000_000)
        is_due = due != (self._steps - 1) * STEP_NS // (content.trade_group_ms * 1_000_000)
        if self._waiting and is_due:
            yield TradeBatch(self.product.id, tuple(self._waiting), now_ns)
            self._waiting.clear()
        if self._trade_id != before:
            price = _price(self._best("bid"))
            yield TickerBatch(self.product.id, self._ticker_fields(price), self._trade_id, now_ns)

    def _take(self, time_ns: int, changed: dict[tuple[Side, int], Decimal]) -> None:
        """One taker, who may eat several levels at one instant."""
        chance = self._chance
        side: Side = chance.choice(("bid", "offer"))
        left = self._size() * chance.choice((1, 1, 1, 4))
        time_ns = max(time_ns, self._waiting[-1].time_ns if self._waiting else 0)
        while left > 0 and len(self._sizes[side]) > 1:
            ticks = self._best(side)
            resting = self._sizes[side][ticks]
            size = min(left, resting)
            maker_side: MakerSide = "BUY" if side == "bid" else "SELL"
            self._waiting.append(self._trade(ticks, size, maker_side, time_ns))
            self._volume += size
            left -= size
            self._set(side, ticks, resting - size, changed)

    def _quote(self, changed: dict[tuple[Side, int], Decimal]) -> None:
        """A maker moves: a new size, a removal, now and then of a level that is not there."""
        chance = self._chance
        side: Side = chance.choice(("bid", "offer"))
        if chance.random() < FAR_REMOVAL_SHARE:
            far = self._best(side) + (-1 if side == "bid" else 1) * (self._content.depth * 3 + chance.randint(1, 999))
            if far > 0 and far not in self._sizes[side]:
                changed.setdefault((side, far), Decimal(0))
            return
        away = min(int(chance.expovariate(0.15)), self._content.depth)
        other = self._best("offer" if side == "bid" else "bid")
        ticks = other - 1 - away if side == "bid" else other + 1 + away
        is_crowded = len(self._sizes[side]) > self._content.depth
        is_removal = is_crowded and ticks in self._sizes[side] and chance.random() < 0.5
        self._set(side, max(1, ticks), Decimal(0) if is_removal else self._size(), changed)

    def _refill(self, changed: dict[tuple[Side, int], Decimal]) -> None:
        """Keep some depth, and forget quotes that the market has left far behind."""
        for side, step in (("bid", -1), ("offer", 1)):
            levels = self._sizes[side]  # type: ignore[index]  # a Side by construction
            while len(levels) < self._content.depth // 2:
                outermost = min(levels) if step < 0 else max(levels)
                self._set(side, max(1, outermost + step), self._size(), changed)  # type: ignore[arg-type]
            while len(levels) > self._content.depth * 3:
                self._set(side, min(levels) if step < 0 else max(levels), Decimal(0), changed)  # type: ignore[arg-type]

    def _set(self, side: Side, ticks: int, size: Decimal, changed: dict[tuple[Side, int], Decimal]) -> None:
        if size:
            self._sizes[side][ticks] = size
        else:
            self._sizes[side].pop(ticks, None)
        changed[side, ticks] = size

    def _trade(self, ticks: int, size: Decimal, maker_side: MakerSide, time_ns: int) -> VenueTrade:
        self._trade_id += 1
        return VenueTrade(self.product.id, self._trade_id, _price(ticks), str(size), maker_side, time_ns)

    def _best(self, side: Side) -> int:
        return max(self._sizes["bid"]) if side == "bid" else min(self._sizes["offer"])

    def _size(self) -> Decimal:
        return (Decimal(self._chance.randint(1, 200_000_000)) * SIZE_UNIT).quantize(SIZE_UNIT)

    def _ticker_fields(self, price: str) -> dict[str, str]:
        bid, ask = self._best("bid"), self._best("offer")
        return {
            "price": price,
            "volume_24_h": str(self._volume),
            "low_24_h": _price(self._middle - 5000 if self._middle > 5000 else 1),
            "high_24_h": _price(self._middle + 5000),
            "low_52_w": _price(max(1, self._middle // 2)),
            "high_52_w": _price(self._middle * 2),
            "price_percent_chg_24_h": "0.5",
            "best_bid": _price(bid),
            "best_ask": _price(ask),
            "best_bid_quantity": str(self._sizes["bid"][bid]),
            "best_ask_quantity": str(self._sizes["offer"][ask]),
        }


def _price(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02}"


def _draw(chance: random.Random, mean: float) -> int:
    """A Poisson number (Knuth, The Art of Computer Programming 2, 3.4.1); large means by the normal approximation."""
    if mean <= 0:
        return 0
    if mean > 30:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count
