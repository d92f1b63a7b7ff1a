"""The state of one feed, and what comes out of it. Behaviour lives in `pipeline`, `handlers`, `trust` and
`questions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from nodeagent.market.model.events import Instrument, Reject, VenueError
from nodeagent.market.model.rows import GapRow, Row
from nodeagent.market.model.source import Channel, RestRequest, Source
from nodeagent.market.pipeline.connection import Connection
from nodeagent.market.pipeline.product import Product, ProductState
from nodeagent.market.pipeline.skew import Skew
from nodeagent.market.pipeline.validation import Rules

PRODUCTS_MAX: Final = 10_000
"""Products followed at once when any is welcome: bounds what hostile input can make us remember."""
UNKNOWN_TYPES_MAX: Final = 100


class PipelineSettings(msgspec.Struct, frozen=True):
    """What an operator may choose."""

    book_depth: int = 50
    """Levels a side in book rows."""
    every_change: bool = False
    """Also write each level change (table book_change)."""
    book_check_interval_s: float = 300.0
    """How often each book is compared with the venue's REST answer; 0: never."""


class Resubscribe(msgspec.Struct, frozen=True):
    """Unsubscribe and subscribe again on a connection: the snapshot that follows repairs books and recent trades."""

    connection_id: int
    products: tuple[str, ...]
    channels: tuple[Channel, ...]


class Subscribe(msgspec.Struct, frozen=True):
    """Ask a connection for one product alone, with all its channels, to see whether the venue has it."""

    connection_id: int
    product: str


Action: TypeAlias = RestRequest | Resubscribe | Subscribe


class Output(msgspec.Struct, gc=False):
    """What one record led to."""

    rows: list[Row] = []
    rejects: list[Reject] = []
    venue_errors: list[VenueError] = []


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a feed knew at a place of its capture. One who is told this, and reads on from there, finds what the first
    one found: the same holes under the same rows, the same minutes."""

    now_ns: int = 0
    """Receipt time of the record there; 0: nothing is known."""
    products: tuple[str, ...] | None = None
    """Followed then; None: not written down, or any."""
    left: tuple[str, ...] = ()
    """Followed earlier; frames of theirs may still come."""
    states: dict[str, ProductState] = {}
    """Of products followed then or earlier."""
    gaps: tuple[GapRow, ...] = ()
    """Open ones of books and connections."""


class FeedState:
    """One feed: a source, its products, any number of connections."""

    def __init__(
        self,
        source: Source,
        products: Iterable[str] | None,
        settings: PipelineSettings,
        instruments: Mapping[str, Instrument],
        known: Known,
    ) -> None:
        self.source = source
        self.settings = settings
        self.rules = Rules(products, instruments)
        self.has_instruments = bool(instruments)
        self.skew = Skew()
        self.products: dict[str, Product] = {}
        self.left = frozenset(known.left)
        """Products followed earlier: frames of theirs that are still under way mean nothing."""
        self.connections: dict[int, Connection] = {}
        self.orphan_gaps = list(known.gaps)
        """Open gaps of connections and books that are gone; the next snapshots close them."""
        self.now_ns = known.now_ns
        """Receipt wall time of the record at hand."""
        self.venue_now_ns = 0
        """The venue's clock at that moment: skew removed. 0 while the skew is unknown."""
        self.position = 0
        self.frames = 0
        self.unreadable = 0
        """Frames refused before any product was known."""
        self.sequence_gaps = 0
        self.out_of_order = 0
        self.duplicate_frames = 0
        self.unknown_types: dict[str, int] = {}
        self.known = dict(known.states)
        """Products that were followed before, as they stood: followed again, they go on from there."""
        for name in known.states:
            if name in (self.rules.products or ()):
                self.product(name)

    def product(self, name: str) -> Product | None:
        """The product, made at first need; None when it is not ours."""
        product = self.products.get(name)
        if product is not None:
            return product
        if not self.rules.knows(name) or not name or len(self.products) >= PRODUCTS_MAX:
            return None
        product = Product(name, self.source.venue, self.source.name, self.known.get(name))
        self.products[name] = product
        return product

    def known_now(self) -> Known:
        """What one who goes on from here must be told."""
        followed = self.rules.products
        return Known(
            self.now_ns,
            tuple(sorted(followed)) if followed is not None else None,
            tuple(sorted(self.left)),
            self.known | {name: product.state() for name, product in self.products.items()},
            tuple(self._open_gaps()),
        )

    def known_anew(self) -> Known:
        """What one who begins again from nothing must be told, so that what is gone by then is not passed over."""
        states = self.known_now().states
        ledgers = {name: Product(name, "", "", state).ledger.anew() for name, state in states.items()}
        return Known(states={name: ProductState(ledger) for name, ledger in ledgers.items()})

    def _open_gaps(self) -> Iterator[GapRow]:
        """Those of books and connections."""
        yield from self.orphan_gaps
        for connection in self.connections.values():
            yield from connection.open_gaps
            yield from (book.open_gap for book in connection.books.values() if book.open_gap is not None)

    def count_unknown(self, name: str) -> None:
        """A message type we do not know: ignored and counted, under its name as long as there are not too many."""
        key = name[:40] if name in self.unknown_types or len(self.unknown_types) < UNKNOWN_TYPES_MAX else "other"
        self.unknown_types[key] = self.unknown_types.get(key, 0) + 1
        for product in self.products.values():
            product.counts.unknown_types += 1

    def missing_trades(self) -> int:
        """Trades known to be missing now, over all products."""
        return sum(product.ledger.missing.total() for product in self.products.values())

    def collect_absent_removals(self, connection: Connection) -> None:
        """Move the books' counts into the products'."""
        for name, state in connection.books.items():
            product = self.products.get(name)
            if product is not None:
                product.counts.absent_removals += state.levels.take_absent_removals()

    def synced_connection(self, product: str) -> Connection | None:
        """The oldest connection with a trusted book of the product: the one whose book becomes rows."""
        for connection in self.connections.values():
            state = connection.books.get(product)
            if state is not None and state.is_synced:
                return connection
        return None

    def is_synced(self, product: str) -> bool:
        """Whether the product's book can be trusted: on some connection if any keeps one."""
        keepers = [c.books[product] for c in self.connections.values() if product in c.books]
        return any(state.is_synced for state in keepers) or (not keepers and bool(self.connections))
