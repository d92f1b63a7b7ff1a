"""What every service of a node has in common: the door through which one more enters.

A service is something beside replicas that a node runs, such as market data. The controller and it speak in messages of
its own (a file in proto/agentfarm/v1); the parts between carry them unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prometheus_client.core import Metric

from agentfarm.errors import FarmError, InvalidRequest
from agentfarm.service import Service
from nodeagent.machine.programs import RuntimeFolder


@dataclass(frozen=True, slots=True)
class Place:
    """What a service gets of the daemon that runs it."""

    folder: Path
    """The node's data folder; a service has folders of its own in it."""
    runtime: RuntimeFolder
    ends_processes: bool
    """Whether the service's processes end with it. Else they work on, and the next daemon takes them over."""
    changed: Callable[[], None]
    """Called when the service has other capabilities or says something else in its Hello than before."""


class NodeService(Service):
    """`start` and `stop` are those of every service. The rest says nothing, until a service has something to say."""

    name: ClassVar[str]
    """Names it on the wire."""
    promises: ClassVar[tuple[str, ...]] = ()
    """Capabilities that the node will have once the service is ready. A replica that needs one is not started before:
    its variables are those of its start."""

    def __init__(self, place: Place) -> None:
        super().__init__(self.name)
        self.place = place
        self.ready = asyncio.Event()
        """Set once what it promises is there."""
        self.capabilities: tuple[str, ...] = ()
        """What the node can do now because of the service."""
        self.variables: Mapping[str, str] = {}
        """What replicas that start from now on find in their environment."""

    def hello(self) -> bytes:
        """What the controller hears of the service on a new stream."""
        return b""

    def obey(self, desired: bytes) -> None:
        """What the service should be: a whole state, not a change. Raises DecodeError for what is no such message."""

    def report(self, *, is_first: bool) -> bytes | None:
        """How the service does; asked with each heartbeat. None: nothing to say. is_first: on this stream, so whole."""
        del is_first
        return None

    def answer(self, question: bytes) -> AsyncGenerator[bytes]:
        """The answer to a question, in chunks, the first one soon. Raises FarmError at any step; here also DecodeError,
        for what is no such message."""
        del question
        return refusal(InvalidRequest(f"The service {self.name} answers no questions."))

    def metrics(self) -> Iterable[Metric]:
        """Its numbers; asked at each scrape."""
        return ()


async def refusal(problem: FarmError) -> AsyncGenerator[bytes]:
    """The answer to a question that is not answered: no chunk, but the problem."""
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk
    raise problem
