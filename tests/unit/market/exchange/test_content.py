"""What is told: a generated market that could be real, and recordings told as they were."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from agentfarm.errors import InvalidRequest
from nodeagent.market.exchange import GeneratedContent, RecordedContent
from nodeagent.market.exchange.events import BookBatch, TradeBatch
from nodeagent.market.exchange.venue import Venue

STEPS = 6000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_generated_market_is_consistent(seed: int) -> None:
    content = GeneratedContent(("BTC-USD", "XYZ-USD"), seed, 10**18, trades_per_s=20)
    venue = Venue(content.openings())
    last = {name: market.trades[-1] for name, market in venue.markets.items()}
    sent_at_ns = 0
    removals_of_nothing = 0
    for batch in islice(content.batches(), STEPS):
        assert batch.sent_at_ns >= sent_at_ns
        sent_at_ns = batch.sent_at_ns
        market = venue.markets[batch.product]
        if isinstance(batch, BookBatch):
            removals_of_nothing += sum(
                size == "0" and price not in market.sides[side] for side, price, size in batch.changes
            )
        venue.apply(batch)
        if isinstance(batch, BookBatch):
            bid, ask = market.best("bid")[0], market.best("offer")[0]
            assert 0 < Decimal(bid) < Decimal(ask), "the book is crossed"
        elif isinstance(batch, TradeBatch):
            for trade in batch.trades:
                assert trade.trade_id == last[batch.product].trade_id + 1
                assert trade.time_ns >= last[batch.product].time_ns
                assert Decimal(trade.size) > 0
                last[batch.product] = trade
    assert removals_of_nothing > 0, "the real feed removes levels that are not there"


def test_equal_seeds_tell_equal_stories() -> None:
    def story(seed: int) -> list[object]:
        content = GeneratedContent(("BTC-USD",), seed, 5)
        return [*content.openings(), *islice(content.batches(), 500)]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_recording_is_told_as_it_was(captures: Path) -> None:
    content = RecordedContent(captures / "advtrade_2026-08-09_btc-eth_part1.jsonl.gz")
    openings = {opening.product.id: opening for opening in content.openings()}
    assert {name: (len(o.bids), len(o.asks), len(o.trades)) for name, o in openings.items()} == {
        "BTC-USD": (18764, 27236, 100),
        "ETH-USD": (6935, 16399, 100),
    }
    batches = list(content.batches())
    assert sum(isinstance(batch, BookBatch) for batch in batches) == 544
    assert sum(len(batch.trades) for batch in batches if isinstance(batch, TradeBatch)) == 60


def test_old_exchange_recording_is_told_too(captures: Path) -> None:
    content = RecordedContent(captures / "exchange_2021-04-17_10products.cryptofeed.txt.gz")
    assert len(content.openings()) == 10
    trades = sum(len(batch.trades) for batch in content.batches() if isinstance(batch, TradeBatch))
    assert trades + sum(len(opening.trades) for opening in content.openings()) == 97 + 10


def test_file_without_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("nothing\n{}\n")
    with pytest.raises(InvalidRequest, match="holds no frame"):
        RecordedContent(tmp_path / "x.txt")


@pytest.fixture
def captures() -> Path:
    """The folder of recorded market data."""
    folder = Path(__file__).parents[4].parent / "shared" / "data" / "coinbase"
    if not folder.is_dir():
        pytest.skip("the recorded market data (../shared/data/coinbase) is not here")
    return folder
