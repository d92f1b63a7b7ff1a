"""A node of this release beside a controller of 0.1: what it says and hears of its market data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from nodeagent.link import release_0_1

MEASURED = market_pb2.MarketMeasured(state="live", rows=8, lag_ms=9)
PRODUCTS = [market_pb2.ProductStatus(product="A-USD", state=market_pb2.PRODUCT_STATE_GOOD)]


def beat(report: market_pb2.MarketReport) -> wire.Beat:
    services = [wire.ServiceReport(name="other"), wire.ServiceReport(name="market", payload=report.SerializeToString())]
    return wire.Beat(seq=4, measured=wire.Measured(disk_free_mib=7), services=services)


def market_of(measured: wire.Measured) -> tuple[str, int, int]:
    return measured.market_state, measured.market_rows, measured.market_lag_ms


def heard(message: wire.ControllerMessage) -> wire.ControllerMessage:
    orders: list[wire.ControllerMessage] = []
    release_0_1.hearing(orders.append)(message)
    (order,) = orders
    return order


def test_hello_says_the_market_in_both_words() -> None:
    market = market_pb2.MarketHello(products=["A-USD"], takes_products=True, source="coinbase", measured=MEASURED)
    hello = wire.Hello(measured=wire.Measured(), services=[wire.ServiceHello(name="other")])
    hello.services.add(name="market", payload=market.SerializeToString())
    release_0_1.fill_hello(hello)
    assert (list(hello.products), hello.takes_products, hello.market_source) == (["A-USD"], True, "coinbase")
    assert market_of(hello.measured) == ("live", 8, 9)
    assert len(hello.services) == 2


def test_products_that_changed_are_a_message_of_their_own() -> None:
    changed = beat(market_pb2.MarketReport(products=PRODUCTS, measured=MEASURED))
    report = release_0_1.change_beat(changed)
    assert report is not None
    assert list(report.products) == PRODUCTS
    assert market_of(changed.measured) == ("live", 8, 9)
    assert (changed.seq, changed.measured.disk_free_mib, len(changed.services)) == (4, 7, 0)
    same = beat(market_pb2.MarketReport(products_unchanged=True, measured=MEASURED))
    assert release_0_1.change_beat(same) is None
    assert market_of(same.measured) == ("live", 8, 9)
    assert release_0_1.change_beat(wire.Beat()) is None, "this node has no market data"


def test_report_of_the_products_follows_its_beat() -> None:
    changed = wire.NodeMessage(beat=beat(market_pb2.MarketReport(products=PRODUCTS, measured=MEASURED)))
    started = wire.NodeMessage(attempts_started=wire.AttemptsStarted(tokens=[7]))
    messages = list(release_0_1.draining(lambda: [changed, started])())
    assert [message.WhichOneof("body") for message in messages] == ["beat", "market_report", "attempts_started"]
    assert not messages[0].beat.services
    assert list(messages[1].market_report.products) == PRODUCTS


@pytest.mark.parametrize("products", [[], ["A-USD"]])
def test_products_of_the_list_reach_the_service(products: list[str]) -> None:
    desired = wire.Desired(generation=3, market=wire.DesiredMarket(products=products))
    (service,) = heard(wire.ControllerMessage(desired=desired)).desired.services
    assert service.name == "market"
    assert list(market_pb2.MarketDesired.FromString(service.payload).products) == products
    silent = heard(wire.ControllerMessage(desired=wire.Desired(generation=4)))
    assert not silent.desired.services, "it says nothing of products: they stay"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (json.dumps({"product": "A-USD", "open": True}), {"product": "A-USD", "open": "true"}),
        (json.dumps({"product": None, "open": False, "since": ""}), {}),
        ("", {}),
        ("[1]", {"arguments_json": "[1]"}),  # refused by that name
        ("{", {"arguments_json": "{"}),
    ],
)
def test_a_question_reaches_the_service(text: str, arguments: dict[str, Any]) -> None:
    request = wire.FeedRequest(request_id=7, verb="gaps", arguments_json=text)
    told = heard(wire.ControllerMessage(feed_request=request)).service_request
    question = market_pb2.MarketQuestion.FromString(told.payload)
    assert (told.request_id, told.name, question.verb, dict(question.arguments)) == (7, "market", "gaps", arguments)


def test_other_orders_pass_as_they_are() -> None:
    order = wire.ControllerMessage(log_stop=wire.LogStop(request_id=7))
    assert heard(order) is order
