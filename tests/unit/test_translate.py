"""Market products on the wire: what nodes say of their feeds, and what they are told."""

from __future__ import annotations

from agentfarm.wire import link_pb2 as wire
from controller.core.lives import ProductState
from controller.core.model import NodeName, ProductName, ProductStatus
from controller.core.transition import SetDesired
from controller.link import translate

N1 = NodeName("n1")


def test_hello_says_whether_a_feed_takes_products() -> None:
    old = translate.joined(N1, 1, wire.Hello(products=["BTC-USD"]))
    assert (old.products, old.takes_products, old.market_source) == (frozenset({"BTC-USD"}), False, "")
    new = translate.joined(N1, 1, wire.Hello(takes_products=True, market_source="coinbase-advanced"))
    assert (new.takes_products, new.market_source) == (True, "coinbase-advanced")


def test_report_of_a_newer_daemon_is_not_taken_for_good() -> None:
    report = wire.MarketReport()
    for number, name in enumerate(("unspecified", "starting", "good", "doubtful", "failed", "newer")):
        report.products.add(product=name, state=number, reason=f"why {name}")
    heard = translate.market_reported(N1, 3, report)
    assert (heard.node, heard.session) == (N1, 3)
    assert {name: status.state for name, status in heard.products.items()} == {
        "unspecified": ProductState.DOUBTFUL,
        "starting": ProductState.STARTING,
        "good": ProductState.GOOD,
        "doubtful": ProductState.DOUBTFUL,
        "failed": ProductState.FAILED,
        "newer": ProductState.DOUBTFUL,
    }
    assert heard.products["failed"] == ProductStatus(ProductState.FAILED, "why failed")


def test_list_tells_products_to_those_who_take_them_alone() -> None:
    told = translate.message(SetDesired(N1, 1, 7, [], (ProductName("BTC-USD"),)))
    nothing = translate.message(SetDesired(N1, 1, 7, [], ()))
    silent = translate.message(SetDesired(N1, 1, 7, []))
    assert told is not None
    assert nothing is not None
    assert silent is not None
    assert list(told.desired.market.products) == ["BTC-USD"]
    assert nothing.desired.HasField("market"), "an empty list takes products away"
    assert not silent.desired.HasField("market")
