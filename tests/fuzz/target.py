"""One input: a few frames or a REST answer, through a source's parser and a pipeline of its own.

An input is lines. Each is a frame, but such as begin with `?`: they are REST answers to the purpose that the next byte
chooses (`?1[…]` is a page of trades). So an input is readable, and the recorded frames are inputs as they are.

Run as a program it is what libFuzzer runs; with `--show FILE` it runs one input without it.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

atheris: Any = __import__("atheris") if importlib.util.find_spec("atheris") else None

with atheris.instrument_imports(include=["nodeagent.market"]) if atheris else nullcontext():
    from nodeagent.market.model.records import Record, RecordKind, RestAnswer
    from nodeagent.market.model.rows import BookRow, Row, TickerRow, TradeRow
    from nodeagent.market.model.source import Purpose, RestRequest, Source, load_source
    from nodeagent.market.pipeline.pipeline import Pipeline

START_NS = 1_786_309_548_000_000_000
STEP_NS = 300_000_000
ANSWER = b"?"
OPENED = b'{"source":"s","url":"","products":["%s"],"channels":["trades","book","ticker"]}'


def feed(source: Source, data: bytes) -> list[Row]:
    """Everything an input leads to. Raises what the feed would have raised, or AssertionError for an unsound row."""
    pipeline = Pipeline(source, None)
    product = "BTCUSDT" if source.name == "binance" else "BTC-USD"
    rows = list(pipeline.feed(Record(RecordKind.CONNECT, 1, START_NS, START_NS, OPENED % product.encode())).rows)
    now_ns = START_NS
    for line in data.split(b"\n"):
        now_ns += STEP_NS
        if line[:1] == ANSWER and len(line) > 1:
            purpose = list(Purpose)[(line[1] - ord("0")) % len(Purpose)]
            answer = RestAnswer(RestRequest(purpose, "", product, 1, 5, connection_id=1), 200, line[2:])
            record = Record(RecordKind.REST, 0, now_ns, now_ns, answer.encode())
        else:
            record = Record(RecordKind.RECEIVED, 1, now_ns, now_ns, line)
        rows += pipeline.feed(record).rows
        pipeline.due(now_ns)
    rows += pipeline.finish().rows
    for row in rows:
        _assert_sound(row)
    return rows


def _assert_sound(row: Row) -> None:
    if isinstance(row, TradeRow):
        assert row.price > 0 and row.size > 0 and row.trade_id >= 0, row  # noqa: PT018 - one claim
        assert row.aggressor_side in {"buy", "sell"}, row
        assert row.product, row
    elif isinstance(row, TickerRow):
        assert row.price > 0, row
    elif isinstance(row, BookRow):
        best_bid, best_ask = row.bids[0][:1], row.asks[0][:1]
        assert not (best_bid and best_ask) or best_bid[0] < best_ask[0], row


def main(arguments: list[str]) -> None:
    """`SOURCE --show FILE`, or `SOURCE` and what libFuzzer is told."""
    source = load_source(arguments[0])
    if arguments[1:2] == ["--show"]:
        print("\n".join(map(repr, feed(source, Path(arguments[2]).read_bytes()))))
        return

    def one(data: bytes) -> None:
        feed(source, data)

    atheris.Setup([sys.argv[0], *arguments[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
