"""Market data as a service of the node. Its messages are those of proto/agentfarm/v1/market.proto."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Final

from prometheus_client.core import Metric

from agentfarm.wire import market_pb2 as wire
from nodeagent.services.market import report
from nodeagent.services.market.programs import Market
from nodeagent.services.market.questions import MarketQuestions
from nodeagent.services.market.settings import MarketSettings
from nodeagent.services.service import NodeService, Place

CAPABILITY: Final = "questdb"
ADDRESS: Final = "AGENTFARM_TSDB"
"""The variable in which agents find QuestDB."""


class MarketService(NodeService):
    """QuestDB, the feed, and what the controller hears of them."""

    name = "market"
    promises = (CAPABILITY,)

    def __init__(self, settings: MarketSettings, place: Place) -> None:
        super().__init__(place)
        self._market = Market(settings, place.folder, place.runtime, self._has_database)
        self._questions = MarketQuestions(place.folder, place.runtime, lambda: self._market.served)
        self._reports = report.Reports()

    async def _begin(self) -> None:
        self.run_task(self._market.run(), name="market")

    async def _finish(self) -> None:
        await self._market.stop(with_server=self.place.ends_processes)

    def hello(self) -> bytes:
        """See `NodeService`."""
        market = self._market
        return wire.MarketHello(
            products=market.products,
            takes_products=market.takes_products,
            source=market.source,
            measured=report.measured(market.status()),
        ).SerializeToString()

    def obey(self, desired: bytes) -> None:
        """See `NodeService`."""
        self._market.assign(wire.MarketDesired.FromString(desired).products)

    def report(self, *, is_first: bool) -> bytes:
        """See `NodeService`. The products are left out while nothing in them changed."""
        status = self._market.status()
        statuses = report.product_statuses(self._market.served, status.feed, self._market.failed)
        return self._reports.next(statuses, report.measured(status), is_first=is_first).SerializeToString()

    def answer(self, question: bytes) -> AsyncGenerator[bytes]:
        """See `NodeService`."""
        return self._questions.answer(wire.MarketQuestion.FromString(question))

    def metrics(self) -> Iterable[Metric]:
        """See `NodeService`."""
        return report.metrics(self._market.status())

    def _has_database(self, address: str) -> None:
        self.capabilities = (CAPABILITY,)
        self.variables = {ADDRESS: address}
        self.ready.set()
        self.place.changed()
