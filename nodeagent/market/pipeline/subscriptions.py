"""Which products a venue has agreed to send on a connection, and which it refuses. Pure.

A venue answers a subscription by an acknowledgement that lists products, or by an error that may name none. One wrong
name in a message can spoil it for the others in it. So after an error, each product that is not yet acknowledged is
asked for alone, one after the other: then an answer without a name has a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from agentfarm.backoff import longest_s
from nodeagent.market.model.events import Event
from nodeagent.market.model.times import NS

ANSWER_WITHIN_NS: Final = 5 * NS
"""A product asked for alone and not answered for so long is taken for refused; the next one has its turn."""
ACKNOWLEDGED_WITHIN_NS: Final = 15 * NS
"""Asked for together with others and not acknowledged by then: ask alone."""
RETRY_NS: Final = 60 * NS
RETRY_MAX_NS: Final = 3600 * NS
"""A refused product is asked for again now and then: the venue may list it later."""
REASON_CHARS_MAX: Final = 200


class Wait(msgspec.Struct):
    """A product that was asked for, or is to be, and is not acknowledged."""

    next_ask_ns: int
    attempts: int = 0
    """Alone."""
    refusal: str = ""
    """Why the venue does not send it; empty while that is open."""


class Subscriptions:
    """Those of one connection."""

    __slots__ = ("_alone", "_alone_since_ns", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Wait] = {}
        self._alone = ""
        self._alone_since_ns = 0

    def asked(self, products: Iterable[str], now_ns: int) -> None:
        """They were asked for, together."""
        for product in products:
            self.waiting[product] = Wait(now_ns + ACKNOWLEDGED_WITHIN_NS)

    def dropped(self, product: str) -> None:
        """It is not wanted any more."""
        self.waiting.pop(product, None)

    def acknowledged(self, products: Iterable[str] | None) -> None:
        """The venue sends these. None: an acknowledgement without names, of all that was asked for."""
        for product in list(self.waiting) if products is None else products:
            self.waiting.pop(product, None)

    def brought(self, events: Iterable[Event]) -> None:
        """What comes has been agreed to."""
        self.acknowledged({getattr(event, "product", "") for event in events} & self.waiting.keys())

    def refused(self, text: str, now_ns: int) -> None:
        """An error of the venue, which may be about a subscription."""
        if not self.waiting:
            return
        named = [product for product in self.waiting if _names(text, product)]
        if not named and self._alone in self.waiting:
            named = [self._alone]
        for product in named:
            self._refuse(product, text, now_ns)
        for wait in self.waiting.values():
            if not wait.refusal:  # it may have been in the message that was refused
                wait.next_ask_ns = min(wait.next_ask_ns, now_ns)

    def due(self, now_ns: int) -> str | None:
        """The product to ask for alone now, if any; asking counts."""
        if self._alone in self.waiting:
            if 0 <= now_ns - self._alone_since_ns < ANSWER_WITHIN_NS:
                return None
            why = self.waiting[self._alone].refusal or "the venue does not answer the subscription"
            self._refuse(self._alone, why, now_ns)
        for product, wait in self.waiting.items():
            if wait.next_ask_ns <= now_ns or wait.next_ask_ns > now_ns + RETRY_MAX_NS:
                wait.attempts += 1
                self._alone, self._alone_since_ns = product, now_ns
                return product
        self._alone = ""
        return None

    def refusal(self, product: str) -> str:
        """Why the venue does not send it; empty when it does, or has not said."""
        wait = self.waiting.get(product)
        return wait.refusal if wait is not None else ""

    def _refuse(self, product: str, text: str, now_ns: int) -> None:
        wait = self.waiting[product]
        wait.refusal = text[:REASON_CHARS_MAX] or "refused"
        wait.next_ask_ns = now_ns + int(longest_s(wait.attempts + 1, RETRY_NS, RETRY_MAX_NS))
        if self._alone == product:
            self._alone = ""


def _names(text: str, product: str) -> bool:
    """Whether a text names the product, and not only one that begins or ends like it."""
    return re.search(rf"(?<![\w-]){re.escape(product)}(?![\w-])", text) is not None
