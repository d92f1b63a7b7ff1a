"""The settings of the market service: `market` in the daemon's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

DEFAULT_SOURCE: Final = "coinbase-advanced"
RECORDED: Final = "capture"


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
    """What it is called: live, simulated or capture. Empty: simulated for a venue on loopback, else live."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `asdict`, after JSON."""
        return cls(**{**data, "products": tuple(data["products"])})


def market_kind(settings: MarketSettings) -> str:
    """live, simulated or capture: as the settings say, or by whether the venue is on this machine."""
    if settings.kind:
        return settings.kind
    if settings.feed.get("source") == RECORDED:
        return "capture"
    host = urlsplit(str(settings.feed.get("ws_url", ""))).hostname
    return "simulated" if host in ("127.0.0.1", "localhost", "::1") else "live"
