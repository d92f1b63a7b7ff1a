"""Hostile bytes: parsers never raise, and nothing wrong ever becomes a row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.market.model.events import Parsed
from nodeagent.market.model.records import Record, RecordKind, RestAnswer
from nodeagent.market.model.rows import Row, TickerRow, TradeRow
from nodeagent.market.model.source import Purpose, RestRequest, Source
from nodeagent.market.pipeline.pipeline import Pipeline
from nodeagent.market.venues.binance.source import Binance
from nodeagent.market.venues.coinbase_advanced.source import CoinbaseAdvanced
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.unit.market.frames import ADVANCED_FRAMES, BINANCE_FRAMES, EXCHANGE_FRAMES
from tests.unit.market.venue import START_NS

SOURCES: list[tuple[Source, list[bytes]]] = [
    (CoinbaseAdvanced(), ADVANCED_FRAMES),
    (CoinbaseExchange(), EXCHANGE_FRAMES),
    (Binance(), BINANCE_FRAMES),
]
BY_SOURCE = pytest.mark.parametrize(("source", "frames"), SOURCES, ids=[source.name for source, _ in SOURCES])
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def feed_all(source: Source, frames: list[bytes]) -> list[Row]:
    """Frames through a pipeline, one every 10 ms."""
    pipeline = Pipeline(source, None)
    rows: list[Row] = []
    for number, frame in enumerate(frames):
        at_ns = START_NS + number * 10_000_000
        rows += pipeline.feed(Record(RecordKind.RECEIVED, 1, at_ns, at_ns, frame)).rows
    pipeline.due(START_NS)
    return rows + pipeline.finish().rows


def assert_sound(rows: list[Row]) -> None:
    for row in rows:
        if isinstance(row, TradeRow):
            assert row.price > 0
            assert row.size > 0
            assert row.aggressor_side in {"buy", "sell"}
            assert row.trade_id >= 0
            assert row.product
        elif isinstance(row, TickerRow):
            assert row.price > 0


@BY_SOURCE
@FUZZ
@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise(source: Source, frames: list[bytes], frame: bytes) -> None:
    parsed = source.parse(frame, START_NS)
    assert isinstance(parsed, Parsed)
    assert parsed.events or parsed.rejects or parsed.unknown_type
    feed_all(source, [frame])


@BY_SOURCE
@FUZZ
@given(st.data())
def test_real_frames_with_damage_never_raise_and_make_no_unsound_row(
    source: Source, frames: list[bytes], data: st.DataObject
) -> None:
    damaged = []
    for frame in data.draw(st.lists(st.sampled_from(frames), min_size=1, max_size=4)):
        content = bytearray(frame)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content)))
            kind = data.draw(st.integers(0, 3))
            if kind == 0:
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            elif kind == 1:
                del content[at : at + data.draw(st.integers(1, 40))]
            elif kind == 2:
                content[at:at] = data.draw(st.sampled_from((b"0", b"-", b".", b"9" * 30, b"null", b'"', b"}", b"e9")))
            else:
                content[at:] = b""
        damaged.append(bytes(content))
    assert_sound(feed_all(source, frames + damaged + frames))


@BY_SOURCE
@FUZZ
@given(st.data())
def test_real_frames_with_a_value_of_another_kind_never_raise(
    source: Source, frames: list[bytes], data: st.DataObject
) -> None:
    message = json.loads(data.draw(st.sampled_from(frames)))
    _replace_somewhere(message, data)
    frame = json.dumps(message).encode()
    assert_sound(feed_all(source, [*frames, frame, *frames]))


@BY_SOURCE
@FUZZ
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()), st.data())
def test_rest_answers_never_raise(source: Source, frames: list[bytes], body: bytes, data: st.DataObject) -> None:
    pipeline = Pipeline(source, None)
    pipeline.feed(Record(RecordKind.RECEIVED, 1, START_NS, START_NS, frames[0]))
    purpose = data.draw(st.sampled_from(list(Purpose)))
    answer = RestAnswer(RestRequest(purpose, "", "BTC-USD", 1, 5, connection_id=1), 200, body)
    pipeline.feed(Record(RecordKind.REST, 0, START_NS, START_NS, answer.encode()))
    for kind in RecordKind:
        pipeline.feed(Record(kind, 1, START_NS, START_NS, body))


def test_endless_nesting_and_numbers_are_refused() -> None:
    for source, _ in SOURCES:
        for frame in (b"[" * 200_000, b'{"a":' * 50_000, b"9" * 200_000, b'{"type":"' + b"x" * 100_000 + b'"}'):
            parsed = source.parse(frame, START_NS)
            assert not parsed.events
            assert len(str(parsed)) < 200_000


def _replace_somewhere(message: Any, data: st.DataObject) -> None:
    """Put an arbitrary value, or nothing, at an arbitrary place."""
    while True:
        keys = list(message) if isinstance(message, dict) else list(range(len(message)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = message[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            message = inner
            continue
        if data.draw(st.booleans()):
            message[key] = data.draw(json_values)
        else:
            del message[key]
        return
