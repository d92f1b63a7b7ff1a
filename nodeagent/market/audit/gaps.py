"""The holes that a feed has found, as the table feed_gap tells them."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from agentfarm.errors import Conflict
from nodeagent.market.audit.report import Tell
from nodeagent.market.audit.tables import Tables
from nodeagent.market.store.endpoint import Endpoint

GAPS_MAX: Final = 10_000


def tell_gaps(endpoint: Endpoint, tell: Tell, *, product: str | None, since_ns: int, is_open: bool) -> bool:
    """Tell each gap, oldest first, and their number: found since a moment or still open; with `is_open` those alone.

    At most GAPS_MAX, the newest. Raises Conflict where there is no such table, Unavailable without a server.
    """
    tables = Tables(endpoint)
    if "feed_gap" not in tables.names():
        raise Conflict("This QuestDB has no table feed_gap.", remedy="Make it again: farmctl feed replay --node NODE.")
    tables.until_visible("feed_gap")
    found = tables.gaps(product, since_ns, is_open=is_open, now_ns=time.time_ns())
    for gap in found[-GAPS_MAX:]:
        tell("gap", msgspec.to_builtins(gap))
    still_open = sum(gap.repaired_at is None for gap in found)
    tell("done", {"gaps": len(found), "open": still_open, "left_out": max(0, len(found) - GAPS_MAX)})
    return True
