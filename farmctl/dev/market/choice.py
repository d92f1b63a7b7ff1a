"""Where market data comes from: a venue itself, an exchange of our own with a generated market, or a recording."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from agentfarm.errors import InvalidRequest
from agentfarm.names import nearest

LIVE_HOST: Final = "advanced-trade-ws.coinbase.com"
BINANCE_HOST: Final = "stream.binance.com"
LIVE_PORT: Final = 443
REACH_WITHIN_S: Final = 2.0
COINBASE: Final = "coinbase-advanced"
BINANCE: Final = "binance"
PRODUCTS: Final = {COINBASE: ("BTC-USD", "ETH-USD"), BINANCE: ("BTCUSDT", "ETHUSDT")}
"""What is fed of each source, unless a recording says otherwise."""
PROTOCOLS: Final = {COINBASE: "advanced", BINANCE: "binance"}
"""What our own exchange speaks to each source."""


class MarketKind(StrEnum):
    """Which of the sources it is."""

    LIVE = "live"
    SIMULATED = "simulated"
    CAPTURE = "capture"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Market:
    """A choice, with the words that tell it."""

    kind: MarketKind
    words: str
    capture: Path | None = None
    source: str = COINBASE
    """Of the feed, unless it plays a recording."""

    @property
    def needs_exchange(self) -> bool:
        """Whether our own exchange has to run."""
        return self.kind is MarketKind.SIMULATED


_OFF: Final = Market(MarketKind.OFF, "off")
_LIVE: Final = Market(MarketKind.LIVE, f"live: Coinbase ({LIVE_HOST})")
_NAMES: Final = ("auto", "live", "simulated", "binance", "simulated-binance", "off")


def choose_market(option: str, is_live_reachable: Callable[[], bool]) -> Market:
    """The market behind the option. `is_live_reachable` is asked only for `auto`.

    Raises InvalidRequest for what is neither a name nor a file.
    """
    match option:
        case "off":
            return _OFF
        case "live":
            return _LIVE
        case "simulated":
            return Market(MarketKind.SIMULATED, "simulated: a generated market on an exchange of our own")
        case "binance":
            return Market(MarketKind.LIVE, f"live: Binance spot ({BINANCE_HOST})", source=BINANCE)
        case "simulated-binance":
            words = "simulated: a generated market on an exchange of our own that speaks as Binance does"
            return Market(MarketKind.SIMULATED, words, source=BINANCE)
        case "auto":
            if is_live_reachable():
                return _LIVE
            return Market(
                MarketKind.SIMULATED,
                f"simulated: {LIVE_HOST} cannot be reached, so an exchange of our own makes a market up",
            )
    path = Path(option)
    if not path.is_file():
        close = nearest(option, _NAMES)
        raise InvalidRequest(
            f"--market {option!r} is neither a file nor one of {', '.join(_NAMES)}.",
            remedy=f"Did you mean {close!r}?" if close else "Give a capture of Coinbase's feed, or one of these.",
        )
    path = path.resolve()
    return Market(MarketKind.CAPTURE, f"capture: {path.name}, played as it was recorded", path)


def recorded_products(path: Path) -> tuple[str, ...]:
    """The products a recording has, as the exchange's program reads it. Raises InvalidRequest, in that program's words,
    when the file holds no frame of a Coinbase feed."""
    command = (sys.executable, "-m", "nodeagent.market.exchange", "--capture", str(path), "--list-products")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InvalidRequest(done.stderr.strip().rpartition("\n")[2] or f"{path} cannot be read.")
    return tuple(json.loads(done.stdout))


def is_live_reachable(host: str = LIVE_HOST, port: int = LIVE_PORT, within_s: float = REACH_WITHIN_S) -> bool:
    """Whether a TLS connection to Coinbase comes up in time; on a thread, because name look-ups know no deadline."""
    answer: list[bool] = []

    def reach() -> None:
        try:
            with socket.create_connection((host, port), timeout=within_s) as plain:
                plain.settimeout(within_s)
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host):
                    answer.append(True)
        except OSError:  # ssl.SSLError is one
            answer.append(False)

    thread = threading.Thread(target=reach, name="reach-live", daemon=True)
    thread.start()
    thread.join(within_s)
    return bool(answer and answer[0])
