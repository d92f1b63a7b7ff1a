"""An exchange of our own on loopback: both Coinbase protocols and Binance spot, generated or recorded content, faults
on request.

A tool for tests and for machines that cannot reach an exchange. It speaks over a real WebSocket and real HTTP, knows
exactly what it sent (`ExchangeServer.sent_trades`), and can lose, double, reorder, corrupt, cut, delay or refuse
whatever it sends.

```
content (generated | recorded) ─▶ venue (books, trades) ─▶ speaker of each session ─▶ faults ─▶ WebSocket
                                          └────────────────────────▶ REST
```

It shares no code with the feed: each checks the other. `python -m nodeagent.market.exchange --help` starts one.
"""

from nodeagent.market.exchange.faults import Fault, FaultKind
from nodeagent.market.exchange.generated import GeneratedContent
from nodeagent.market.exchange.recorded import RecordedContent
from nodeagent.market.exchange.registry import Protocol
from nodeagent.market.exchange.server import ExchangeServer, HouseRules

__all__ = ["ExchangeServer", "Fault", "FaultKind", "GeneratedContent", "HouseRules", "Protocol", "RecordedContent"]
