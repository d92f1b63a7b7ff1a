"""Long frames and answers are read in slices: each is small, and together they say what the whole says."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.market.model import decimals
from nodeagent.market.model.decimals import BadNumber, read_many, read_scaled
from nodeagent.market.model.events import BookSnapshot
from nodeagent.market.model.records import Record, RecordKind, RestAnswer
from nodeagent.market.model.slices import SLICE_BYTES, Steps, whole
from nodeagent.market.model.source import Purpose, Source, parse_book_in_slices, parse_in_slices
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.pipeline.state import Output
from nodeagent.market.venues import fields as reading
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.venue import START_NS

LEVELS = 46_000
SMALLEST_LEVEL_BYTES = 24
"""`["63510.00","0.00000011"],` and the like."""
SOURCES: list[Source] = [CoinbaseAdvanced(), CoinbaseExchange()]


def _levels(count: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Bids and asks, best first."""
    chance = random.Random(count)

    def size() -> str:
        return str(
            Decimal(chance.randint(1, 10**8)).scaleb(-chance.randint(0, 8)).quantize(Decimal("1e-8")).normalize()
        )

    half = count // 2
    bids = [(f"{60_000 - n / 100:.2f}", format(Decimal(size()), "f")) for n in range(half)]
    asks = [(f"{60_001 + n / 100:.2f}", format(Decimal(size()), "f")) for n in range(count - half)]
    return bids, asks


def snapshot_frame(source: Source, count: int, product: str = "BTC-USD") -> bytes:
    """A book snapshot of so many levels."""
    bids, asks = _levels(count)
    time = "2026-08-09T21:05:48.170326Z"
    message: dict[str, Any]
    if source.name == "coinbase-exchange":
        message = {"type": "snapshot", "product_id": product, "bids": bids, "asks": asks, "time": time}
    else:
        updates = [
            {"side": side, "event_time": time, "price_level": price, "new_quantity": size}
            for side, levels in (("bid", bids), ("offer", asks))
            for price, size in levels
        ]
        event = {"type": "snapshot", "product_id": product, "updates": updates}
        message = {"channel": "l2_data", "timestamp": time, "sequence_num": 0, "events": [event]}
    return json.dumps(message, separators=(",", ":")).encode()


def _book_answer(source: Source, count: int) -> bytes:
    bids, asks = _levels(count)
    if source.name == "coinbase-exchange":
        return json.dumps({"sequence": 7, "bids": [(*b, 1) for b in bids], "asks": [(*a, 2) for a in asks]}).encode()
    sides = [[{"price": price, "size": size} for price, size in levels] for levels in (bids, asks)]
    return json.dumps({"pricebook": {"product_id": "BTC-USD", "bids": sides[0], "asks": sides[1]}}).encode()


class _Numbers:
    """Counts the texts that become numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for module in ("fields", "coinbase_advanced.source"):
            monkeypatch.setattr(f"nodeagent.market.venues.{module}.read_many", self._read_many)

    def _read_many(self, texts: list[str]) -> list[int]:
        self.count += len(texts)
        return read_many(texts)


def _run(steps: Steps[Output], numbers: _Numbers) -> tuple[Output, list[int]]:
    """What came out, and how many numbers were read in each slice."""
    counts = []
    while True:
        before = numbers.count
        try:
            next(steps)
        except StopIteration as end:
            counts.append(numbers.count - before)
            return end.value, counts
        counts.append(numbers.count - before)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_no_slice_of_a_snapshot_of_46000_levels_reads_more_than_its_share(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = _Numbers(monkeypatch)
    pipeline = Pipeline(source, ["BTC-USD"])
    frame = snapshot_frame(source, LEVELS)
    record = Record(RecordKind.RECEIVED, 1, START_NS, START_NS, frame)
    _, counts = _run(pipeline.steps(record), numbers)
    assert numbers.count == 2 * LEVELS
    assert len(counts) > len(frame) // SLICE_BYTES
    assert max(counts) <= 2 * SLICE_BYTES / SMALLEST_LEVEL_BYTES
    book = pipeline.state.connections[1].books["BTC-USD"].book
    assert len(book.bids) + len(book.asks) == LEVELS


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@pytest.mark.parametrize("purpose", [Purpose.BOOK_CHECK, Purpose.BOOK_REPAIR])
def test_no_slice_of_a_book_over_rest_reads_more_than_its_share(
    source: Source, purpose: Purpose, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(source, ["BTC-USD"])
    pipeline.feed(Record(RecordKind.RECEIVED, 1, START_NS, START_NS, snapshot_frame(source, 100)))
    request = source.book_request("BTC-USD", Purpose.BOOK_CHECK)
    assert request is not None
    request = type(request)(purpose, request.url, "BTC-USD", connection_id=1)
    payload = RestAnswer(request, 200, _book_answer(source, LEVELS)).encode()
    numbers = _Numbers(monkeypatch)
    out, counts = _run(pipeline.steps(Record(RecordKind.REST, 1, START_NS, START_NS, payload)), numbers)
    assert not out.rejects
    assert numbers.count == 2 * LEVELS
    assert max(counts) <= 2 * SLICE_BYTES / SMALLEST_LEVEL_BYTES


def test_nothing_changes_before_the_last_slice() -> None:
    pipeline = Pipeline(CoinbaseAdvanced(), ["BTC-USD"])
    feed = pipeline.state
    steps = pipeline.steps(Record(RecordKind.RECEIVED, 1, START_NS, START_NS, snapshot_frame(feed.source, 5000)))
    turns = 0
    for _ in steps:
        turns += 1
        assert (feed.frames, feed.position, feed.now_ns, feed.products, feed.connections) == (0, 0, 0, {}, {})
    assert turns > 3
    assert feed.frames == 1
    assert feed.is_synced("BTC-USD")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_slices_say_what_the_whole_says_also_of_damaged_frames(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SLICE_BYTES", 300)
    chance = random.Random(3)
    frame = snapshot_frame(source, 60)
    request = source.book_request("BTC-USD", Purpose.BOOK_CHECK)
    assert request is not None
    frames = [frame, frame[:-200], frame.replace(b'"],[', b'"], \n ['), b"[]", b"{", frame.replace(b"6", b"},{", 40)]
    for _ in range(300):
        damaged = bytearray(frame)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b'{}[],:"0.9-e\\ x\xff')
        frames.append(bytes(damaged))
    snapshots = 0
    for each in frames:
        parsed = whole(parse_in_slices(source, each, START_NS))
        assert parsed == source.parse(each, START_NS)
        snapshots += any(isinstance(event, BookSnapshot) for event in parsed.events)
    assert 10 < snapshots < len(frames) - 10
    body = _book_answer(source, 60)
    assert whole(parse_book_in_slices(source, request, body)) == source.parse_book(request, body)


def test_a_source_that_knows_no_slices_is_read_as_a_whole() -> None:
    class Plain:
        def parse(self, frame: bytes, received_at_ns: int) -> tuple[bytes, int]:
            return frame, received_at_ns

    plain: Any = Plain()
    assert whole(parse_in_slices(plain, b"x", 3)) == (b"x", 3)


@given(
    st.lists(
        st.one_of(
            st.decimals(0, 10**15, places=8).map(lambda number: format(number, "f")),
            st.text("0123456789.", max_size=20),
            st.sampled_from(["", ".", "1e3", "-1", "1_0", " 1", "\u0661", "9" * 60, "0.0000000000001", "1.2.3", "nan"]),
        ),
        max_size=6,
    )
)
def test_numbers_read_together_are_those_read_one_by_one(texts: list[str]) -> None:
    try:
        expected = [read_scaled(text) for text in texts]
    except BadNumber as error:
        with pytest.raises(BadNumber, match=re.escape(str(error))):
            decimals.read_many(texts)
    else:
        assert decimals.read_many(texts) == expected
