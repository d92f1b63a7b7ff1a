"""A generated market that goes on where an earlier one ended: the ids of its trades continue without a hole."""

from __future__ import annotations

from nodeagent.market.exchange.events import TradeBatch
from nodeagent.market.exchange.generated import GeneratedContent


def test_trade_ids_go_on_after_those_already_told() -> None:
    content = GeneratedContent(("BTC-USD", "ETH-USD"), 1, 10**18, after_trades={"BTC-USD": 41})
    bitcoin, ether = content.openings()
    assert [trade.trade_id for trade in bitcoin.trades] == list(range(42, 42 + len(bitcoin.trades)))
    assert ether.trades[0].trade_id == GeneratedContent(("ETH-USD",), 1, 10**18).openings()[0].trades[0].trade_id
    batches = iter(content.batches())
    first = next(b for b in batches if isinstance(b, TradeBatch) and b.product == "BTC-USD")
    assert first.trades[0].trade_id == bitcoin.trades[-1].trade_id + 1
