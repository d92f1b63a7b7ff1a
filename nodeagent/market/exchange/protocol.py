"""What makes a venue's protocol: how a connection speaks, what the venue allows, what REST answers.

`registry` has the three of them. The server and its sessions know these interfaces and nothing of any venue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from nodeagent.market.exchange.events import Batch
from nodeagent.market.exchange.faults import Frame
from nodeagent.market.exchange.limits import Limit
from nodeagent.market.exchange.venue import Venue

Query = dict[str, str]


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """What to send back."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    is_snapshot: bool = False
    """A whole book: what the fault `close_in_snapshot` cuts where books come over REST."""

    def encode(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, separators=(",", ":")).encode()


class BadQuestion(Exception):
    """A question that cannot be answered. `code` is the venue's own number, where it has any."""

    def __init__(self, status: int, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def read_target(target: str) -> tuple[str, Query]:
    """Path and parameters of `GET target`; of a parameter given twice, the last."""
    parts = urlsplit(target)
    return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}


class Speaker(Protocol):
    """The venue's side of one connection, purely: messages and events in, frames out."""

    @property
    def is_subscribed(self) -> bool:
        """Whether the client has subscribed to anything."""

    def receive(self, text: str, now_ns: int) -> list[Frame]:
        """Answer a client's message."""

    def frames_of(self, batch: Batch, now_ns: int) -> list[Frame]:
        """The frames that an event brings to this connection. It has happened already."""

    def second(self, now_ns: int) -> list[Frame]:
        """What comes once a second, also while nothing happens."""

    def farewell(self, now_ns: int) -> list[Frame]:
        """The last frames before the server shuts down; none where the venue just goes."""


class Allowance(Protocol):
    """How much may be asked over REST."""

    def judge(self, target: str, now_s: float) -> RestAnswer | None:
        """The refusal of a question; None where it may be asked."""

    def refuse(self, seconds: float, now_s: float) -> RestAnswer:
        """Refuse a question that could have been asked: the fault `429`, for so long where the venue names a time."""

    def headers(self) -> dict[str, str]:
        """The headers of a good answer, about the allowance."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Of connections. Times that are None have no rule."""

    connects: Callable[[], Limit]
    """A fresh limit: of all connections together."""
    messages: Callable[[], Limit]
    """A fresh limit: of one connection's messages to the venue."""
    counts_control_frames: bool = False
    """A client's PING and PONG are messages too."""
    subscribe_within_s: float | None = None
    idle_close_s: float | None = None
    """A connection without data is closed."""
    ping_every_s: float | None = None
    pong_within_s: float | None = None
    lives_s: float | None = None
    """The longest a connection may last."""


class VenueProtocol(Protocol):
    """A venue's protocol."""

    rules: Rules
    products: tuple[str, ...]
    """Of a generated market, where none are named: in the venue's way of writing them."""
    ws_path: str
    rest_base: str

    def speaker(self, venue: Venue, path: str) -> Speaker | None:
        """Who speaks on a connection to that path with its query; None: there is nothing there."""

    def allowance(self, per_s: float | None) -> Allowance:
        """A fresh one. `per_s`: questions a second instead of the venue's own rule."""

    def answer(self, venue: Venue, target: str, now_ns: int) -> RestAnswer:
        """Answer `GET target`."""
