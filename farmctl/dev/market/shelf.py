"""The node's market data, one store for each market: made-up trades never stand beside real ones.

A node has one store, in the folders named here. When the market is another than last time, they are set aside and
those of the new market, if it was here before, are put in their place. Nothing is deleted. No process may use them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from farmctl.dev.folder import read_json
from farmctl.dev.market.choice import COINBASE, Market

FOLDERS: Final = ("capture", "feed", "questdb")
DIGEST_CHARS: Final = 12


def market_key(market: Market) -> str:
    """The name of a market's store: equal for equal data."""
    if market.capture is None:
        return str(market.kind) if market.source == COINBASE else f"{market.kind}-{market.source}"
    with market.capture.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{market.kind}-{digest[:DIGEST_CHARS]}"


def exchange_shelf(node: Path, before: str | None, now: str) -> bool:
    """Put the store of market `now` in place of that of `before`. Whether something was moved."""
    if before is None or before == now:
        return False
    aside = node / "markets"
    moved = _move(node, aside / before)
    return _move(aside / now, node) or moved


def last_trade_ids(node: Path) -> dict[str, int]:
    """The newest trade id of each product that the feed has seen; empty before its first start."""
    status = read_json(node / "feed" / "status.json")
    products = status.get("products", {}) if isinstance(status, dict) else {}
    return {name: int(one["last_trade_id"]) for name, one in products.items() if one.get("last_trade_id")}


def _move(source: Path, target: Path) -> bool:
    folders = [name for name in FOLDERS if (source / name).exists()]
    for name in folders:
        target.mkdir(parents=True, exist_ok=True)
        (source / name).rename(target / name)
    return bool(folders)
