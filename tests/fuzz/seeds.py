"""What the fuzzer begins with: short stories of each venue that reach a trusted book, our own frames, recorded ones."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from nodeagent.market.capture.formats import open_recording
from nodeagent.market.model.records import RecordKind
from tests.unit.market.frames import ADVANCED_FRAMES, BINANCE_FRAMES, EXCHANGE_FRAMES

INPUT_BYTES_MAX = 4096
RECORDED_MAX = 300
RECORDINGS = Path(__file__).parents[2].parent / "shared" / "data" / "coinbase"
FRAMES = {"coinbase-advanced": ADVANCED_FRAMES, "coinbase-exchange": EXCHANGE_FRAMES, "binance": BINANCE_FRAMES}
RECORDED = {
    "coinbase-advanced": (
        "advtrade_2026-08-09_btc-eth_part1.jsonl.gz",
        "advtrade_ticker_2026-04-05_btc-usd_part1.ndjson.gz",
    ),
    "coinbase-exchange": ("exchange_2021-04-17_10products.cryptofeed.txt.gz",),
    "binance": (),
}


def _advanced(number: int, kind: str, *levels: tuple[str, str, str]) -> bytes:
    """A frame of level2; each level is a side, a price and a size."""
    names = ("side", "price_level", "new_quantity")
    updates = [{**dict(zip(names, level, strict=True)), "event_time": _time(number)} for level in levels]
    event = {"type": kind, "product_id": "BTC-USD", "updates": updates}
    return _json({"channel": "l2_data", "timestamp": _time(number), "sequence_num": number, "events": [event]})


def _exchange(kind: str, at: int, **fields: object) -> bytes:
    return _json({"type": kind, "product_id": "BTC-USD", "time": _time(at), **fields})


def _binance(first: int, last: int, bids: list[list[str]], asks: list[list[str]]) -> bytes:
    data = {"e": "depthUpdate", "E": 1_786_309_548_200, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": asks}
    return _json({"stream": "btcusdt@depth@100ms", "data": data})


def _time(number: int) -> str:
    return f"2026-08-09T21:05:{48 + number // 3:02}.{number % 3 * 3}Z"


def _json(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


STORIES = {
    "coinbase-advanced": [
        _advanced(0, "snapshot", ("bid", "100.00", "1"), ("bid", "99.00", "2"), ("offer", "101.00", "1")),
        *(_advanced(number, "update", ("bid", "100.50", str(number)), ("bid", "98.00", "0")) for number in range(1, 5)),
        _advanced(5, "update", ("bid", "102.50", "1")),
        _advanced(7, "update", ("bid", "99.00", "0")),
        _advanced(6, "snapshot", ("bid", "100.00", "1"), ("offer", "101.00", "1")),
    ],
    "coinbase-exchange": [
        _exchange("snapshot", 0, asks=[["101", "1"]], bids=[["100", "1"]]),
        *(_exchange("l2update", number, changes=[["buy", "100.5", str(number)]]) for number in range(1, 5)),
        _exchange("match", 5, trade_id=7, side="buy", size="1", price="100", sequence=1),
        _exchange("heartbeat", 6, last_trade_id=9, sequence=2),
        b"?1" + _json([{"trade_id": 9, "side": "buy", "size": "1", "price": "100", "time": _time(4)}]),
    ],
    "binance": [
        _binance(157, 160, [["100", "1"]], [["101", "0"]]),
        b"?3" + _json({"lastUpdateId": 158, "bids": [["99", "1"]], "asks": [["102", "1"]]}),
        *(_binance(n, n, [["100", str(n)]], [["101", "3"]]) for n in range(161, 165)),
        _binance(167, 168, [["100", "0"]], []),
    ],
}
"""The first four frames or more go well, so that a second ends with a trusted book."""


def write_seeds(source: str, corpus: Path) -> int:
    """Stories, our own frames one by one and together, and some of each recording that is here. How many."""
    recorded = [
        frame for name in RECORDED[source] if (RECORDINGS / name).exists() for frame in _recorded(RECORDINGS / name)
    ]
    own = [b"\n".join(STORIES[source]), *FRAMES[source], b"\n".join(FRAMES[source])]
    seeds = [seed for seed in own + recorded if len(seed) <= INPUT_BYTES_MAX]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    return len(seeds)


def _recorded(path: Path) -> list[bytes]:
    frames = (record.payload for record in open_recording(path).records if record.kind is RecordKind.RECEIVED)
    return list(islice((frame for frame in frames if len(frame) <= INPUT_BYTES_MAX), RECORDED_MAX))
