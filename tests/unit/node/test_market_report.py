"""What the controller is told of each product, from what the feed says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentfarm.wire import market_pb2 as wire
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.services.market.report import product_statuses
from nodeagent.services.market.service import MarketService
from nodeagent.services.market.settings import MarketSettings
from nodeagent.services.service import Place

GOOD = {"products": {"A-USD": {"state": "good", "reason": ""}}}
OLD = {"products": {"A-USD": {"last_trade_id": 1}}}


@pytest.mark.parametrize(
    ("said", "failed", "state", "reason"),
    [
        (GOOD, "", wire.PRODUCT_STATE_GOOD, ""),
        (GOOD, "no Java", wire.PRODUCT_STATE_FAILED, "no Java"),
        (None, "", wire.PRODUCT_STATE_STARTING, "the feed is starting"),
        ({**GOOD, "is_stale": True}, "", wire.PRODUCT_STATE_DOUBTFUL, "the feed says nothing"),
        ({"products": {}}, "", wire.PRODUCT_STATE_STARTING, "the feed has not taken it up yet"),
        (OLD, "", wire.PRODUCT_STATE_STARTING, "the feed has not taken it up yet"),
    ],
)
def test_a_product_is_told_as_it_is(said: Any, failed: str, state: int, reason: str) -> None:
    (told,) = product_statuses(["A-USD"], said, failed)
    assert (told.product, told.state, told.reason) == ("A-USD", state, reason)


def test_products_are_said_when_something_in_them_changed_and_first_of_all(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    place = Place(tmp_path, RuntimeFolder(tmp_path / "runtime"), ends_processes=True, changed=lambda: None)
    service = MarketService(MarketSettings(products=("A-USD",), takes_products=True), place)

    def told(*, is_first: bool = False) -> list[str] | None:
        report = wire.MarketReport.FromString(service.report(is_first=is_first))
        assert report.measured.state == "starting"
        return None if report.products_unchanged else [status.product for status in report.products]

    assert told(is_first=True) == ["A-USD"]
    assert told() is None
    service.obey(wire.MarketDesired(products=["B-USD"]).SerializeToString())
    assert told() == ["A-USD", "B-USD"]
    assert told() is None
    assert told(is_first=True) == ["A-USD", "B-USD"], "another stream knows nothing yet"
