"""A million damaged frames, no crash: part of `make test-long`."""

from __future__ import annotations

import random

import pytest

from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.rows import TradeRow
from nodeagent.market.model.source import Source
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.venues.binance.source import Binance
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.frames import ADVANCED_FRAMES, BINANCE_FRAMES, EXCHANGE_FRAMES
from tests.unit.market.venue import START_NS

FRAMES = 1_000_000
PIECES = (
    b"0",
    b"-",
    b".",
    b"e9",
    b"null",
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"\\u0000",
    b"\xff",
    b"9" * 40,
    b"NaN",
    b"true",
)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("source", "frames"),
    [(CoinbaseAdvanced(), ADVANCED_FRAMES), (CoinbaseExchange(), EXCHANGE_FRAMES), (Binance(), BINANCE_FRAMES)],
    ids=["coinbase-advanced", "coinbase-exchange", "binance"],
)
def test_a_third_of_a_million_damaged_frames_never_crash(source: Source, frames: list[bytes]) -> None:
    chance = random.Random(source.name)
    short = [frame for frame in frames if len(frame) < 4000]
    pipeline = Pipeline(source, None)
    accepted = rejected = 0
    for number in range(FRAMES // 3):
        frame = damaged(chance.choice(short), chance)
        at_ns = START_NS + number * 1_000_000
        out = pipeline.feed(Record(RecordKind.RECEIVED, chance.randint(1, 3), at_ns, at_ns, frame))
        accepted += len(out.rows)
        rejected += len(out.rejects)
        assert all(row.price > 0 and row.size > 0 for row in out.rows if isinstance(row, TradeRow))
        if number % 1000 == 0:
            pipeline.due(at_ns)
    assert rejected > FRAMES // 20
    assert accepted


def damaged(frame: bytes, chance: random.Random) -> bytes:
    """The frame with one to three random edits."""
    content = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(content):
            content[at] = chance.randrange(256)
        elif kind == 1:
            del content[at : at + chance.randint(1, 30)]
        elif kind == 2:
            content[at:at] = chance.choice(PIECES)
        elif kind == 3 and at < len(content):
            content[at] = chance.choice(b"0123456789")
        else:
            start = chance.randrange(len(content) + 1)
            content[at:at] = content[start : start + 40]
    return bytes(content)
