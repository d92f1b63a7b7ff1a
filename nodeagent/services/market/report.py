"""What the controller is told of the node's market products: the whole list, when something in it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.services.market.programs import Market

REPORT_EVERY_S: Final = 1.0
"""Changes are told at most this often."""
_STATES: Final = {
    "starting": wire.PRODUCT_STATE_STARTING,
    "good": wire.PRODUCT_STATE_GOOD,
    "doubtful": wire.PRODUCT_STATE_DOUBTFUL,
    "failed": wire.PRODUCT_STATE_FAILED,
}


class MarketReports:
    """Beside the market, which it only reads. A node without market data reports nothing."""

    def __init__(self, market: Market, outgoing: Outgoing) -> None:
        self._market = market
        self._outgoing = outgoing
        self._told: wire.MarketReport | None = None

    async def run(self) -> None:
        """Until cancelled."""
        if not self._market.is_here:
            await asyncio.Event().wait()
        while True:
            report = self._report()
            if report != self._told:
                self._tell(report)
            await asyncio.sleep(REPORT_EVERY_S)

    def welcomed(self) -> None:
        """A new stream knows nothing yet."""
        if self._market.is_here:
            self._tell(self._report())

    def _tell(self, report: wire.MarketReport) -> None:
        self._told = report
        self._outgoing.market(report)

    def _report(self) -> wire.MarketReport:
        market = self._market
        return market_report(market.served, market.status().feed, market.failed)


def market_report(served: Iterable[str], said: Mapping[str, Any] | None, failed: str) -> wire.MarketReport:
    """From the products to serve, the feed's status (None: there is none) and why there is no market data at all."""
    return wire.MarketReport(products=[_product(name, said, failed) for name in served])


def _product(name: str, said: Mapping[str, Any] | None, failed: str) -> wire.ProductStatus:
    if failed:
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_FAILED, reason=failed)
    if said is None:
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_STARTING, reason="the feed is starting")
    if said.get("is_stale"):
        return wire.ProductStatus(product=name, state=wire.PRODUCT_STATE_DOUBTFUL, reason="the feed says nothing")
    mine = said.get("products", {}).get(name, {})
    state = _STATES.get(mine.get("state"), wire.PRODUCT_STATE_STARTING)
    reason = "" if state == wire.PRODUCT_STATE_GOOD else mine.get("reason") or "the feed has not taken it up yet"
    return wire.ProductStatus(product=name, state=state, reason=reason)
