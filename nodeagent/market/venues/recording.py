"""A recording as a source: its venue's own source reads the frames, and no question is put.

`open` says which recording. Rows are those of the recorded venue, under its source's name; the node's settings say
that they are no live data (`kind: capture`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest
from agentfarm.names import suggestion
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.model.records import Record, RecordKind
from nodeagent.market.model.source import Purpose, RestRequest, Source, TradeHole, load_source

PROBE_RECORDS: Final = 5_000
"""Read ahead to see which products a recording holds."""


class Capture:
    """Implements `Source` once it is open, by handing on to the source whose frames the recording holds."""

    name = "capture"
    websocket_url = ""
    rest_url = ""
    path: Path
    recorded: Source

    def open(self, path: Path) -> None:
        """Say which recording. Raises InvalidRequest for what is none."""
        if not path.exists():
            raise InvalidRequest(f"There is no recording {path}.", remedy="Check `recording` in the feed's settings.")
        self.path = path
        self.recorded = load_source(open_recording(path).source)
        self.name = self.recorded.name
        self.websocket_url = path.resolve().as_uri()

    def records(self) -> Iterator[Record]:
        """All of it, from the beginning."""
        return open_recording(self.path).records

    def check_products(self, products: tuple[str, ...]) -> None:
        """Raises InvalidRequest when the recording holds others, whose frames would look damaged, or lacks one."""
        held: set[str] = set()
        for record in islice(self.records(), PROBE_RECORDS):
            if record.kind is RecordKind.RECEIVED:
                held |= {getattr(event, "product", "") for event in self.recorded.parse(record.payload, 1).events}
        held.discard("")
        for product in sorted(set(products) - held):
            raise InvalidRequest(
                f"The recording {self.path.name} holds no {product}.",
                remedy=suggestion(product, held) or f"It holds {', '.join(sorted(held))}.",
            )
        if held - set(products):
            raise InvalidRequest(
                f"The recording {self.path.name} also holds {', '.join(sorted(held - set(products)))}.",
                remedy="Name all of its products.",
            )

    def instruments_request(self) -> RestRequest | None:
        """None: answers are in the recording or nowhere."""
        return None

    def trades_request(self, hole: TradeHole) -> RestRequest | None:
        """As above."""
        return None

    def book_request(self, product: str, purpose: Purpose) -> RestRequest | None:
        """As above."""
        return None

    def __getattr__(self, name: str) -> Any:
        """Everything else is the recorded venue's own. Raises InvalidRequest while no recording is open."""
        if name.startswith("_") or name in ("path", "recorded"):
            raise AttributeError(name)
        if "recorded" not in self.__dict__:
            raise InvalidRequest(
                "The source 'capture' plays a recording.", remedy="Set `recording: FILE` in the feed's settings."
            )
        return getattr(self.recorded, name)
