"""What the controller is told of each product, from what the feed says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.services.market.report import market_report

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
    (told,) = market_report(["A-USD"], said, failed).products
    assert (told.product, told.state, told.reason) == ("A-USD", state, reason)


def test_of_two_reports_that_wait_only_the_newer_is_sent() -> None:
    outgoing = Outgoing(lambda: None)
    outgoing.market(market_report(["A-USD"], None, ""))
    outgoing.open([])
    assert list(outgoing.drain()) == []  # there was no stream
    outgoing.market(market_report(["A-USD"], None, ""))
    outgoing.market(market_report(["A-USD"], GOOD, ""))
    (message,) = outgoing.drain()
    assert message.market_report.products[0].state == wire.PRODUCT_STATE_GOOD
