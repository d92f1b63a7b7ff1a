"""One store of market data for each market, and the way back to each."""

from __future__ import annotations

import json
from pathlib import Path

from farmctl.dev.market.choice import Market, MarketKind
from farmctl.dev.market.shelf import exchange_shelf, last_trade_ids, market_key


def test_another_market_gets_a_store_of_its_own_and_the_first_comes_back_whole(tmp_path: Path) -> None:
    node = tmp_path / "node-1"
    (node / "identity").mkdir(parents=True)
    (node / "questdb").mkdir()
    (node / "questdb" / "rows").write_text("live rows")
    assert exchange_shelf(node, "live", "simulated")
    assert not (node / "questdb").exists()
    (node / "questdb").mkdir()
    (node / "questdb" / "rows").write_text("made up")
    assert exchange_shelf(node, "simulated", "live")
    assert (node / "questdb" / "rows").read_text() == "live rows"
    assert exchange_shelf(node, "live", "simulated")
    assert (node / "questdb" / "rows").read_text() == "made up"
    assert (node / "identity").exists()


def test_the_same_market_and_the_first_start_move_nothing(tmp_path: Path) -> None:
    (tmp_path / "questdb").mkdir()
    assert not exchange_shelf(tmp_path, "live", "live")
    assert not exchange_shelf(tmp_path, None, "live")
    assert (tmp_path / "questdb").exists()


def test_a_capture_is_known_by_its_content(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (market_key(Market(MarketKind.CAPTURE, "", tmp_path / name)) for name in "abc")
    assert a == b != c
    assert market_key(Market(MarketKind.LIVE, "")) == "live"
    assert market_key(Market(MarketKind.LIVE, "", source="binance")) == "live-binance"


def test_trade_ids_are_those_of_the_last_feed_status(tmp_path: Path) -> None:
    assert last_trade_ids(tmp_path) == {}
    (tmp_path / "feed").mkdir()
    status = {"products": {"BTC-USD": {"last_trade_id": 42}, "ETH-USD": {"last_trade_id": 0}}}
    (tmp_path / "feed" / "status.json").write_text(json.dumps(status))
    assert last_trade_ids(tmp_path) == {"BTC-USD": 42}
