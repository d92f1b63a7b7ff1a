"""What the fuzzer runs, without the fuzzer: its seeds pass, and what it must notice it notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.market.model.events import Parsed
from nodeagent.market.model.rows import BookRow, TradeRow
from nodeagent.market.model.source import load_source
from nodeagent.market.venues.coinbase_exchange.source import CoinbaseExchange
from tests.fuzz.seeds import FRAMES, write_seeds
from tests.fuzz.target import feed


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_seeds_pass_and_reach_rows(name: str, tmp_path: Path) -> None:
    assert write_seeds(name, tmp_path) == len(list(tmp_path.iterdir()))
    rows = [row for seed in tmp_path.iterdir() for row in feed(load_source(name), seed.read_bytes())]
    assert {TradeRow, BookRow} <= {type(row) for row in rows}


class _Raising(CoinbaseExchange):
    def parse(self, frame: bytes, received_at_ns: int) -> Parsed:
        if b"match" in frame:
            raise ZeroDivisionError
        return super().parse(frame, received_at_ns)


def test_a_parser_that_raises_is_noticed() -> None:
    with pytest.raises(ZeroDivisionError):
        feed(_Raising(), b"\n".join(FRAMES["coinbase-exchange"]))
