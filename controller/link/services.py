"""The services of nodes, by the name that their messages bear.

    ServiceHello ─joined▶ NodeJoined     ServiceReport ─measured▶ Measured, ─reported▶ a command
    SetDesired ─desired▶ ServiceDesired  a question over HTTP ─question▶ ServiceRequest

A name that is not here is of a newer node; its messages are left alone.
"""

from __future__ import annotations

from typing import Final

from controller.link.market import MarketMessages
from controller.link.messages import ServiceMessages

SERVICES: Final[dict[str, ServiceMessages]] = {
    "market": MarketMessages(),
}
"""A further service needs a line here."""
