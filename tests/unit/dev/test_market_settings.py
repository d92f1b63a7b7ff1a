"""What `farmctl dev` tells a node of its market: the feed must be able to start with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmctl.dev.folder import FarmFolder
from farmctl.dev.market.choice import PRODUCTS, PROTOCOLS, choose_market
from farmctl.dev.processes.programs import Addresses, exchange_program, market_settings
from nodeagent.market.model.source import load_source
from nodeagent.services.market.settings import MarketSettings


@pytest.mark.parametrize(("option", "source"), [("live", "coinbase-advanced"), ("binance", "binance")])
def test_a_live_market_names_its_source_and_the_venues_own_products(option: str, source: str) -> None:
    market = choose_market(option, lambda: False)
    settings = market_settings(market, PRODUCTS[market.source], None, None, speed=1.0)
    assert settings is not None
    assert settings["feed"] == {"source": source}
    assert tuple(MarketSettings(**settings).products) == PRODUCTS[source]
    assert load_source(settings["feed"]["source"]).name == source


def test_a_simulated_binance_is_an_exchange_that_speaks_as_binance_does(tmp_path: Path) -> None:
    market = choose_market("simulated-binance", lambda: False)
    products = PRODUCTS[market.source]
    program = exchange_program(
        FarmFolder(tmp_path), products, protocol=PROTOCOLS[market.source], port=0, seed=1, after_trades={}
    )
    command = " ".join(program.command)
    assert "--protocol binance --products BTCUSDT,ETHUSDT" in command
    settings = market_settings(
        market, products, Addresses("ws://a/stream", "http://a/api/v3", products), None, speed=1.0
    )
    assert settings is not None
    assert settings["feed"] == {"source": "binance", "ws_url": "ws://a/stream", "rest_url": "http://a/api/v3"}
