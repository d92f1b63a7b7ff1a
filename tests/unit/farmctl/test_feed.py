"""Market data from the command line: how it stands, and what a recording holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from controller.core.commands import NodeBeat
from controller.core.model import Measured, NodeName
from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


def beat(farm: ServedFarm, name: str, measured: Measured) -> None:
    farm.do(lambda: farm.small.engine.do(NodeBeat(NodeName(name), 1, 1, measured)))


def test_a_farm_without_market_data_says_what_to_do(farmctl: Farmctl, farm: ServedFarm) -> None:
    for name in ("node-1", "node-2"):
        beat(farm, name, Measured())
    ran = farmctl("feed", "status")
    assert ran.code == 0
    assert "docs/market-data.md" in ran.out


def test_status_tells_rows_and_lag_and_fails_when_a_feed_failed(farmctl: Farmctl, farm: ServedFarm) -> None:
    beat(farm, "node-2", Measured())
    beat(farm, "node-1", Measured(market_rows=1234, market_lag_ms=7, market_state="live"))
    ran = farmctl("feed", "status", "--json")
    assert ran.code == 0
    assert [(n["node"], n["state"], n["rows"], n["lag_ms"]) for n in ran.json["nodes"]] == [("node-1", "live", 1234, 7)]
    beat(farm, "node-2", Measured(market_state="failed: no Java"))
    ran = farmctl("feed", "status")
    assert ran.code == 1
    assert "failed: no Java" in ran.out


def test_inspect_prints_what_a_recording_holds(tmp_path: Path, farmctl: Farmctl) -> None:
    trade = {
        "type": "match", "trade_id": 7, "side": "buy", "size": "1.5", "price": "100.25", "product_id": "BTC-USD",
        "sequence": 1, "time": "2026-07-07T00:00:00.000000Z", "maker_order_id": "a", "taker_order_id": "b",
    }  # fmt: skip
    recording = tmp_path / "frames.jsonl"
    recording.write_text("".join(json.dumps({**trade, "trade_id": i, "sequence": i}) + "\n" for i in (7, 8, 9)))
    assert farmctl("feed", "inspect", str(recording)).code == 0


def test_inspect_of_no_recording_is_an_error(tmp_path: Path, farmctl: Farmctl) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("buy low, sell high\n")
    assert farmctl("feed", "inspect", str(other)).code == 1
