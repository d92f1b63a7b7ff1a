"""The services of this node: which there are, and all of them as one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError
from prometheus_client.core import Metric

from agentfarm.errors import Conflict, InvalidRequest
from agentfarm.service import Service
from agentfarm.wire import link_pb2 as wire
from nodeagent.machine.logging import log
from nodeagent.services.service import NodeService, Place, refusal
from nodeagent.settings import NodeSettings

WITHOUT: Final = {"market": "This node has no market data."}
"""What a question to a service is answered with on a node that does not run it."""


def node_services(settings: NodeSettings, place: Place) -> list[NodeService]:
    """The services that the settings ask for. A further one needs a line here. Those not asked for are not imported."""
    services: list[NodeService] = []
    if settings.market is not None:
        from nodeagent.services.market.service import MarketService  # noqa: PLC0415 - see above

        services.append(MarketService(settings.market, place))
    return services


class Services(Service):
    """All of them as one. The order is that of `node_services`."""

    def __init__(self, services: Sequence[NodeService]) -> None:
        super().__init__()
        self._services = services
        self._is_new_stream = True
        for service in services:
            self.own(service)

    async def _begin(self) -> None:
        for service in self._services:
            await service.start()

    async def _finish(self) -> None:
        for service in reversed(self._services):
            await service.stop()

    # -------------------------------------------------------------- what replicas need of them

    @property
    def capabilities(self) -> list[str]:
        """What the node can do now because of its services."""
        return [name for service in self._services for name in service.capabilities]

    @property
    def variables(self) -> dict[str, str]:
        """Variables for replicas that start from now on, such as the address of the market data."""
        return {name: value for service in self._services for name, value in service.variables.items()}

    async def arrival(self, capabilities: Iterable[str]) -> None:
        """Wait for those of these capabilities that a service promises."""
        needed = set(capabilities)
        for service in self._services:
            if needed.intersection(service.promises):
                await service.ready.wait()

    # -------------------------------------------------------------- what the link tells and asks

    def hello(self) -> list[wire.ServiceHello]:
        """What the controller hears of them on a new stream."""
        return [wire.ServiceHello(name=service.name, payload=service.hello()) for service in self._services]

    def new_stream(self) -> None:
        """The controller has heard no report on this one."""
        self._is_new_stream = True

    def reports(self) -> list[wire.ServiceReport]:
        """What the next heartbeat carries."""
        is_first, self._is_new_stream = self._is_new_stream, False
        return [
            wire.ServiceReport(name=service.name, payload=payload)
            for service in self._services
            if (payload := service.report(is_first=is_first)) is not None
        ]

    def obey(self, desired: Iterable[wire.ServiceDesired]) -> None:
        """Hand each service what it should be. A service that is not listed keeps what it has."""
        for item in desired:
            if (service := self._find(item.name)) is None:
                continue
            try:
                service.obey(item.payload)
            except DecodeError as problem:
                log.error("service.desired_not_read", service=item.name, problem=str(problem))

    def answer(self, name: str, question: bytes) -> AsyncGenerator[bytes]:
        """The answer of one of them, in chunks. Raises FarmError at any step."""
        service = self._find(name)
        if service is None:
            return refusal(Conflict(WITHOUT.get(name) or f"This node does not run the service {name!r}."))
        try:
            return service.answer(question)
        except DecodeError as problem:
            return refusal(InvalidRequest(f"The service {name} cannot read this question: {problem}."))

    def metrics(self) -> Iterator[Metric]:
        """The numbers of all."""
        for service in self._services:
            yield from service.metrics()

    def _find(self, name: str) -> NodeService | None:
        return next((service for service in self._services if service.name == name), None)
