"""A KEPT record: a trusted book as it stands, so that a replay may begin there instead of at the book's snapshot.

A connection can be days old, and its books' snapshots with it. A feed that begins to replay in the middle would have no
book until the next snapshot. A KEPT record says nothing new to the pipeline that wrote it, nor to a replay from further
back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nodeagent.market.books.trust import BookState
from nodeagent.market.model.events import BookSnapshot
from nodeagent.market.model.records import Connected


class Kept(msgspec.Struct, frozen=True):
    """The payload: one book of one connection. Prices to sizes as texts of scaled numbers, which JSON may not hold."""

    opened: Connected
    next_sequence: int
    """The number of the connection's next frame."""
    product: str
    update_id: int
    bids: dict[str, str]
    asks: dict[str, str]
    is_first: bool
    """The first of the connection's books: from here on all of them follow."""
    is_last: bool

    def snapshot(self, now_ns: int) -> BookSnapshot:
        """The book, as the venue's snapshot of that moment would be."""
        bids = {int(price): int(size) for price, size in self.bids.items()}
        asks = {int(price): int(size) for price, size in self.asks.items()}
        return BookSnapshot(self.product, bids, asks, now_ns, self.update_id)


_decode: Final = msgspec.json.Decoder(Kept).decode


def write(opened: Connected, next_sequence: int, state: BookState, *, is_first: bool, is_last: bool) -> bytes:
    """The payload of one book."""
    return msgspec.json.encode(
        Kept(
            opened,
            next_sequence,
            state.product,
            state.update_id,
            {str(price): str(size) for price, size in state.book.bids.items()},
            {str(price): str(size) for price, size in state.book.asks.items()},
            is_first=is_first,
            is_last=is_last,
        )
    )


def read(payload: bytes) -> Kept | None:
    """The payload; None when it is damaged."""
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
