"""Which market it is: what was asked for, or what can be reached."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from agentfarm.errors import InvalidRequest
from farmctl.dev.market.choice import MarketKind, choose_market, is_live_reachable, recorded_products


def never() -> bool:
    raise AssertionError("only auto looks for Coinbase")


@pytest.mark.parametrize(
    ("option", "kind", "needs_exchange"),
    [
        ("live", MarketKind.LIVE, False),
        ("binance", MarketKind.LIVE, False),
        ("simulated", MarketKind.SIMULATED, True),
        ("simulated-binance", MarketKind.SIMULATED, True),
        ("off", MarketKind.OFF, False),
    ],
)
def test_a_named_market_is_taken_without_looking(option: str, kind: MarketKind, needs_exchange: bool) -> None:
    market = choose_market(option, never)
    assert (market.kind, market.needs_exchange) == (kind, needs_exchange)
    assert market.words.startswith(kind)
    assert market.source == ("binance" if "binance" in option else "coinbase-advanced")


@pytest.mark.parametrize(("is_reachable", "kind"), [(True, MarketKind.LIVE), (False, MarketKind.SIMULATED)])
def test_auto_takes_coinbase_where_it_can_be_reached(is_reachable: bool, kind: MarketKind) -> None:
    assert choose_market("auto", lambda: is_reachable).kind is kind


def test_a_file_is_a_capture(tmp_path: Path) -> None:
    file = tmp_path / "auto"
    file.write_text("{}")
    market = choose_market(str(file), never)
    assert market.kind is MarketKind.CAPTURE
    assert market.capture == file


def test_a_capture_names_its_products(tmp_path: Path) -> None:
    trade = {"type": "match", "trade_id": 1, "maker_order_id": "a", "taker_order_id": "b", "side": "buy", "size": "1",
             "price": "2", "sequence": 3, "time": "2026-07-07T00:00:00.000000Z"}  # fmt: skip
    file = tmp_path / "recording.jsonl"
    file.write_text("".join(json.dumps({**trade, "product_id": name}) + "\n" for name in ("ETH-USD", "BTC-USD")))
    assert recorded_products(file) == ("BTC-USD", "ETH-USD")


def test_a_file_without_frames_is_refused_in_the_words_of_the_exchange(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("buy low, sell high\n")
    with pytest.raises(InvalidRequest) as caught:
        recorded_products(file)
    assert caught.value.problem == f"{file} holds no frame of a Coinbase feed."


def test_a_misspelt_market_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose_market("simulatd", never)
    assert "'simulated'" in caught.value.remedy


def test_a_host_that_does_not_speak_tls_is_not_reachable_and_costs_no_more_than_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert not is_live_reachable("127.0.0.1", mute.getsockname()[1], within_s=0.1)
    assert not is_live_reachable("127.0.0.1", 1, within_s=0.5)
