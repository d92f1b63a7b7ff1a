"""The market service on the wire: see proto/agentfarm/v1/market.proto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agentfarm.limits import COUNT_MAX, ID_MAX, PRODUCT_NAME_CHARS_MAX
from agentfarm.wire import market_pb2 as wire
from controller.core.commands import MarketReported, NodeJoined
from controller.core.lives import ProductState
from controller.core.model import Measured, NodeName, ProductStatus
from controller.core.transition import SetDesired
from controller.link.messages import ServiceMessages, bounded, word

PRODUCT_STATES: Final = {
    wire.PRODUCT_STATE_STARTING: ProductState.STARTING,
    wire.PRODUCT_STATE_GOOD: ProductState.GOOD,
    wire.PRODUCT_STATE_DOUBTFUL: ProductState.DOUBTFUL,
    wire.PRODUCT_STATE_FAILED: ProductState.FAILED,
}


class MarketMessages(ServiceMessages):
    """Feeds: what they are, what they serve, and what they should."""

    def joined(self, joined: NodeJoined, payload: bytes) -> NodeJoined:
        """See `ServiceMessages`."""
        hello = wire.MarketHello.FromString(payload)
        return replace(
            joined,
            products=frozenset(name for name in hello.products if _is_name(name)),
            takes_products=hello.takes_products,
            market_source=word(hello.source),
            measured=_with(joined.measured, hello.measured) if joined.measured is not None else None,
        )

    def measured(self, measured: Measured, payload: bytes) -> Measured:
        """See `ServiceMessages`."""
        return _with(measured, wire.MarketReport.FromString(payload).measured)

    def reported(self, node: NodeName, session: int, payload: bytes) -> MarketReported | None:
        """See `ServiceMessages`. A state of a newer daemon that we do not know is not good."""
        report = wire.MarketReport.FromString(payload)
        if report.products_unchanged:
            return None
        products = {
            status.product: ProductStatus(
                PRODUCT_STATES.get(status.state, ProductState.DOUBTFUL), bounded(status.reason)
            )
            for status in report.products
            if _is_name(status.product)
        }
        return MarketReported(node, session, products)

    def desired(self, effect: SetDesired) -> bytes | None:
        """See `ServiceMessages`."""
        if effect.products is None:
            return None
        return wire.MarketDesired(products=effect.products).SerializeToString()

    def question(self, question: Mapping[str, Any]) -> bytes:
        """`verb` and `arguments`; a switch is true or false."""
        arguments = {
            name: "true" if value is True else str(value)
            for name, value in question["arguments"].items()
            if value not in (None, False, "")
        }
        return wire.MarketQuestion(verb=question["verb"], arguments=arguments).SerializeToString()


def _is_name(product: str) -> bool:
    """Whether it can be the name of a product at all. Venues choose the letters."""
    return 0 < len(product) <= PRODUCT_NAME_CHARS_MAX and "\0" not in product


def _with(measured: Measured, market: wire.MarketMeasured) -> Measured:
    return replace(
        measured,
        market_rows=min(market.rows, ID_MAX),
        market_lag_ms=min(market.lag_ms, COUNT_MAX),
        market_state=word(market.state),
    )
