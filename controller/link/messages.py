"""What the messages of one node service mean to the core. A service overrides what it has something to say about.

Pure, as all translation is: unknown values become the harmless choice. Bytes that are no message raise DecodeError;
`translate` leaves that message out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from agentfarm.errors import InvalidRequest
from agentfarm.limits import COUNT_MAX, ID_MAX, WORD_CHARS_MAX
from controller.core.commands import Command, NodeJoined
from controller.core.model import Measured, NodeName
from controller.core.transition import SetDesired

TEXT_MAX: Final = 64 * 1024
"""Characters of a text from a node that are kept."""


class ServiceMessages:
    """A service of which the core knows nothing, until it is extended."""

    def __init__(self, question: type[Message] | None = None) -> None:
        """question: the message in which the service is asked; its fields are those of the question."""
        self._question = question

    def joined(self, joined: NodeJoined, payload: bytes) -> NodeJoined:
        """What a node says of itself, with what its Hello says of the service."""
        del payload
        return joined

    def measured(self, measured: Measured, payload: bytes) -> Measured:
        """What a node measured, with what a report of the service measured."""
        del payload
        return measured

    def reported(self, node: NodeName, session: int, payload: bytes) -> Command | None:
        """What the core hears of a report; None: nothing."""
        del node, session, payload
        return None

    def desired(self, effect: SetDesired) -> bytes | None:
        """What the service should be; None: it keeps what it has."""
        del effect
        return None

    def question(self, question: Mapping[str, Any]) -> bytes:
        """A question as the service understands it."""
        if self._question is None:
            raise InvalidRequest("This service answers no questions.")
        return self._question(**question).SerializeToString()


# ------------------------------------------------------------------ what PostgreSQL can hold


def bounded(text: str, chars_max: int = TEXT_MAX) -> str:
    """Text that PostgreSQL can hold: bounded, without NUL."""
    return text[:chars_max].replace("\x00", "\N{REPLACEMENT CHARACTER}")


def word(text: str) -> str:
    """A word of a node, as `bounded`."""
    return bounded(text, WORD_CHARS_MAX)


def count(number: int) -> int:
    """A count of a node. What no integer holds is the largest that one does."""
    return min(number, COUNT_MAX)


def identity(number: int) -> int:
    """An id that a node names. What no bigint holds is 0, the id of nothing."""
    return number if number <= ID_MAX else 0
