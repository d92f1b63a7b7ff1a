"""What is known of a feed and of its connections, what comes out of a record, and what a later pipeline continues from.

Holds facts and answers questions about them; it decides nothing. `rules`, `answers` and `lives` change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from nodeagent.market.books import kept
from nodeagent.market.books.trust import BookState
from nodeagent.market.model.events import GapKind, Instrument, Reject, VenueError
from nodeagent.market.model.records import Connected
from nodeagent.market.model.rows import GapRow, Row
from nodeagent.market.model.source import Channel, Source
from nodeagent.market.pipeline.ledger import SequenceLedger
from nodeagent.market.pipeline.product import Product, ProductState
from nodeagent.market.pipeline.skew import Skew
from nodeagent.market.pipeline.subscriptions import Subscriptions
from nodeagent.market.pipeline.validation import Rules

PRODUCTS_MAX: Final = 10_000
"""The most products at once where any is welcome: bounds what hostile input can make us remember."""
UNKNOWN_TYPES_MAX: Final = 100


class PipelineSettings(msgspec.Struct, frozen=True):
    """What an operator may choose."""

    book_depth: int = 50
    """Levels a side in book rows."""
    every_change: bool = False
    """Also write each level change (table book_change)."""
    book_check_interval_s: float = 300.0
    """How often each book is compared with the venue's REST answer; 0: never."""


class Output(msgspec.Struct, gc=False):
    """What one record led to."""

    rows: list[Row] = []
    rejects: list[Reject] = []
    venue_errors: list[VenueError] = []


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a feed knew at a place of its capture. A pipeline that begins there with this memory builds the same rows as
    the first one: the same holes, the same minutes."""

    now_ns: int = 0
    """Receipt time of the record there; 0: the memory is empty."""
    products: tuple[str, ...] | None = None
    """Followed then; None: not written down, or any."""
    left: tuple[str, ...] = ()
    """Followed earlier; frames about them may still come."""
    states: dict[str, ProductState] = {}
    """Of products followed then or earlier."""
    gaps: tuple[GapRow, ...] = ()
    """Open ones of books and connections."""


class Connection:
    """One connection, from its CONNECT record to its end: its frame numbers, its subscriptions, a book per product."""

    __slots__ = (
        "books",
        "connection_id",
        "frame_at_ns",
        "open_gaps",
        "opened",
        "opened_at_ns",
        "sequence",
        "subscriptions",
    )

    def __init__(self, connection_id: int, opened_at_ns: int, opened: Connected | None) -> None:
        self.connection_id = connection_id
        self.opened = opened
        """None where a recording begins in the middle: then the first frame's number is taken as it comes."""
        self.opened_at_ns = opened_at_ns
        self.frame_at_ns = opened_at_ns
        """Receipt of the newest frame."""
        self.sequence = SequenceLedger(None if opened is None else 0)
        self.subscriptions = Subscriptions()
        self.books: dict[str, BookState] = {}
        self.open_gaps: list[GapRow] = []
        """Losses of unknown content, closed when every book is synced again."""

    def book_of(self, product: str, now_ns: int = 0) -> BookState:
        """The product's book, made at first need; now_ns: when the feed subscribed, if later than the connection."""
        state = self.books.get(product)
        if state is None:
            state = self.books[product] = BookState(product, self.connection_id, now_ns or self.opened_at_ns)
        return state

    def expect_book(self, product: str, now_ns: int, *, is_from_rest: bool) -> None:
        """The feed has subscribed to the product: keep its book, if the connection brings books."""
        channels = self.opened.channels if self.opened is not None else ()
        has_orders = Channel.FULL.value in channels
        if has_orders or Channel.BOOK.value in channels:
            state = self.book_of(product, now_ns)
            if has_orders:
                state.follow_orders()
            if has_orders or is_from_rest:
                state.next_ask_ns = now_ns or self.opened_at_ns

    def doubt_books(self, now_ns: int) -> None:
        """Any book here may be wrong from now on."""
        for state in self.books.values():
            state.doubt(now_ns)

    def is_synced(self) -> bool:
        """Whether no book here is in doubt, apart from those that the venue refuses to send."""
        return all(state.is_synced or self.subscriptions.refusal(name) for name, state in self.books.items())

    def kept_books(self) -> Iterator[bytes]:
        """The payload of a KEPT record for each trusted book, as it stands when its turn comes. L3 books are left out:
        they start from a REST answer at each connection."""
        products = [name for name, state in self.books.items() if state.is_synced and state.orders is None]
        if self.opened is None:
            return
        last = len(products) - 1
        for number, product in enumerate(products):
            state = self.books.get(product)
            if state is not None and state.is_synced:
                sequence = self.sequence.expected or 0
                yield kept.write(self.opened, sequence, state, is_first=number == 0, is_last=number == last)


class FeedState:
    """One feed: a source, its products, any number of connections, its clocks."""

    def __init__(
        self,
        source: Source,
        products: Iterable[str] | None,
        settings: PipelineSettings,
        instruments: Mapping[str, Instrument],
        memory: Memory,
    ) -> None:
        self.source = source
        self.settings = settings
        self.rules = Rules(products, instruments)
        self.has_instruments = bool(instruments)
        self.skew = Skew()
        self.products: dict[str, Product] = {}
        self.left = frozenset(memory.left)
        """Products followed earlier: frames about them that are still under way mean nothing."""
        self.connections: dict[int, Connection] = {}
        self.orphan_gaps = list(memory.gaps)
        """Open gaps of connections and books that are gone; the next snapshots close them."""
        self.now_ns = memory.now_ns
        """Receipt wall time of the record at hand."""
        self.venue_now_ns = 0
        """The venue's clock at that moment: skew removed. 0 while the skew is unknown."""
        self.position = 0
        self.frames = 0
        self.unreadable = 0
        """Refusals about no product of ours."""
        self.sequence_gaps = 0
        self.out_of_order = 0
        self.duplicate_frames = 0
        self.unknown_types: dict[str, int] = {}
        self.earlier = dict(memory.states)
        """Products followed before, as they stood: a product that is followed again continues from there."""
        for name in memory.states:
            if name in (self.rules.products or ()):
                self.product(name)

    def product(self, name: str) -> Product | None:
        """The product, made at first need; None when it is not ours."""
        product = self.products.get(name)
        if product is not None:
            return product
        if not self.rules.knows(name) or not name or len(self.products) >= PRODUCTS_MAX:
            return None
        product = Product(name, self.source.venue, self.source.name, self.earlier.get(name))
        self.products[name] = product
        return product

    def memory(self) -> Memory:
        """What a pipeline must know that begins behind the record at hand."""
        followed = self.rules.products
        return Memory(
            self.now_ns,
            tuple(sorted(followed)) if followed is not None else None,
            tuple(sorted(self.left)),
            self.earlier | {name: product.state() for name, product in self.products.items()},
            tuple(self._open_gaps()),
        )

    def memory_of_start(self) -> Memory:
        """What a pipeline must know that reads the whole capture again, so that it notices what is gone by then."""
        states = self.memory().states
        ledgers = {name: Product(name, "", "", state).ledger.start_state() for name, state in states.items()}
        return Memory(states={name: ProductState(ledger) for name, ledger in ledgers.items()})

    def gap_row(self, kind: GapKind, product: str, hole: tuple[int, int], connection_id: int) -> GapRow:
        """The row of a gap that shows in the record at hand. Without a product: of the whole connection."""
        return GapRow(
            self.now_ns,
            self.source.venue,
            product,
            self.source.name,
            kind.value,
            *hole,
            None,
            connection_id,
        )

    def count_unknown(self, name: str) -> None:
        """Count a message of unknown type, under the type's name while there are few such names."""
        key = name[:40] if name in self.unknown_types or len(self.unknown_types) < UNKNOWN_TYPES_MAX else "other"
        self.unknown_types[key] = self.unknown_types.get(key, 0) + 1
        for product in self.products.values():
            product.counts.unknown_types += 1

    def missing_trades(self) -> int:
        """How many trades are missing now, over all products."""
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

    def _open_gaps(self) -> Iterator[GapRow]:
        """The open gaps of books and connections."""
        yield from self.orphan_gaps
        for connection in self.connections.values():
            yield from connection.open_gaps
            yield from (book.open_gap for book in connection.books.values() if book.open_gap is not None)
