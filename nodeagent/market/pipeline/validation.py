"""What the pipeline lets in: each event against its product's rules and the clock.

Text was checked while it was read (`nodeagent.market.venues`); here the numbers are. A refusal is a `Reject` with a
reason; the caller keeps the raw frame. Book levels off the tick grid are refused with the whole delta, since half a
delta makes a wrong book; in a snapshot only the level is left out, as orders older than a change of the increment do
rest off-grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Final

from nodeagent.market.model.decimals import to_text
from nodeagent.market.model.events import BookSnapshot, Instrument, OrderEvent, Reject, RejectReason, Ticker, Trade
from nodeagent.market.model.times import NS, to_iso

TIME_WINDOW_NS: Final = 300 * NS


class Rules:
    """What is known of the products. `products` None means that any product is welcome (a file of unknown origin)."""

    __slots__ = ("_ticks", "is_listing_known", "products")

    def __init__(self, products: Iterable[str] | None, instruments: Mapping[str, Instrument] | None = None) -> None:
        self.products = None if products is None else frozenset(products)
        self.is_listing_known = False
        """The venue has listed all its products."""
        self._ticks: dict[str, int] = {}
        self.learn((instruments or {}).values())

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Take the increments, of all the venue's products: any of them may become ours later."""
        for instrument in instruments:
            self._ticks[instrument.product] = instrument.price_increment

    def is_unlisted(self, product: str) -> bool:
        """Whether the venue's own list of products is known and lacks this one."""
        return self.is_listing_known and product not in self._ticks

    def tick(self, product: str) -> int:
        """The price increment, scaled; 0 while unknown."""
        return self._ticks.get(product, 0)

    def knows(self, product: str) -> bool:
        """Whether the product is one that we asked for."""
        return self.products is None or product in self.products


def check_trade(trade: Trade, rules: Rules, venue_now_ns: int) -> Reject | None:
    """None, or why the trade is refused. `venue_now_ns` is the receipt time, skew removed."""
    product = trade.product
    if not rules.knows(product):
        return Reject(RejectReason.UNKNOWN_PRODUCT, product, product[:64])
    if trade.price <= 0:
        return Reject(RejectReason.PRICE_NOT_POSITIVE, product, f"trade {trade.trade_id}")
    if trade.size <= 0:
        return Reject(RejectReason.SIZE_NOT_POSITIVE, product, f"trade {trade.trade_id}")
    tick = rules.tick(product)
    if tick and trade.price % tick:
        return Reject(RejectReason.OFF_TICK, product, f"trade {trade.trade_id} at {to_text(trade.price)}")
    return _check_time(product, trade.time_ns, venue_now_ns, is_history=trade.is_history)


def check_ticker(ticker: Ticker, rules: Rules, venue_now_ns: int) -> Reject | None:
    """None, or why the ticker is refused."""
    product = ticker.product
    if not rules.knows(product):
        return Reject(RejectReason.UNKNOWN_PRODUCT, product, product[:64])
    if ticker.price <= 0:
        return Reject(RejectReason.PRICE_NOT_POSITIVE, product, "ticker")
    tick = rules.tick(product)
    if tick and ticker.price % tick:
        return Reject(RejectReason.OFF_TICK, product, f"ticker at {to_text(ticker.price)}")
    # Where a ticker carries its trade's time, that of a quiet product is old without being wrong.
    return _check_time(product, ticker.time_ns, venue_now_ns, is_history=True)


def check_snapshot(snapshot: BookSnapshot, rules: Rules) -> tuple[BookSnapshot | None, list[Reject]]:
    """The snapshot without the levels that break a rule, and a reject for each of them."""
    product = snapshot.product
    if not rules.knows(product):
        return None, [Reject(RejectReason.UNKNOWN_PRODUCT, product, product[:64])]
    tick = rules.tick(product) or 1
    rejects = []
    for levels in (snapshot.bids, snapshot.asks):
        if min(levels, default=1) > 0 and gcd(tick, *levels) == tick:
            continue  # all levels at once: a fifth of the time of asking each
        for price in [price for price in levels if price <= 0 or price % tick]:
            del levels[price]
            reason = RejectReason.OFF_TICK if price > 0 else RejectReason.PRICE_NOT_POSITIVE
            rejects.append(Reject(reason, product, f"snapshot level at {to_text(price)}"))
    return snapshot, rejects


def check_order(order: OrderEvent, rules: Rules) -> Reject | None:
    """None, or why a message of the full channel is refused; its book is then in doubt."""
    product = order.product
    if not rules.knows(product):
        return Reject(RejectReason.UNKNOWN_PRODUCT, product, product[:64])
    if order.kind == "open" and order.price <= 0:
        return Reject(RejectReason.PRICE_NOT_POSITIVE, product, f"order {order.order_id[:40]}", breaks_book=True)
    return None


def outside_window(product: str, time_ns: int, venue_now_ns: int, *, breaks_book: bool = False) -> Reject:
    """The refusal of a time that is too far from the venue's now."""
    ahead_ns = time_ns - venue_now_ns
    detail = f"{to_iso(time_ns)} is {abs(ahead_ns) / NS:.0f} s {'ahead' if ahead_ns > 0 else 'behind'}"
    return Reject(RejectReason.OUTSIDE_TIME_WINDOW, product, detail, breaks_book)


def _check_time(product: str, time_ns: int, venue_now_ns: int, *, is_history: bool = False) -> Reject | None:
    """Times must be near the venue's now; history may be old, but not of the future. Unknown times pass, and all of
    them before anything is known of the venue's clock."""
    ahead_ns = time_ns - venue_now_ns
    if (
        not time_ns
        or not venue_now_ns
        or -TIME_WINDOW_NS <= ahead_ns <= TIME_WINDOW_NS
        or (is_history and ahead_ns < 0)
    ):
        return None
    return outside_window(product, time_ns, venue_now_ns)
