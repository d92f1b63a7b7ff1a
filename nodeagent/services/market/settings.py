"""The settings of the market service: `market` in the daemon's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """Market data on this node."""

    questdb_url: str | None = None
    """A server that already runs, instead of one of ours."""
    products: tuple[str, ...] = ()
    """Fed always, whatever the controller says."""
    takes_products: bool = False
    """Whether the controller may give this node's feed more products."""
    feed: dict[str, Any] = field(default_factory=dict)
    """Settings of the feed process: `source`, `ws_url`, `rest_url`, `channels`, … (docs/market-data.md)."""
    kind: str = ""
    """What is told of it: live, simulated or capture. Empty: simulated for a venue on loopback, else live."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `asdict`, after JSON."""
        return cls(**{**data, "products": tuple(data["products"])})
