"""A recording played in place of a connection: the same facts to the same sink, at the pace they happened.

What was received then is received now: it bears the present as its time of receipt, and connection numbers of ours.
The venue's own times stay as they are. Silences are cut short, and at its end it stays at its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.records import Connected, Record, RecordKind, RestAnswer
from nodeagent.market.model.slices import SLICE_BYTES, Portion
from nodeagent.market.model.source import Channel
from nodeagent.market.session.websocket import Sink
from nodeagent.market.venues.recording import Capture

SILENCE_MAX_S: Final = 5.0
LAST_SECOND_S: Final = 2.5
"""Before the end shows: the feed closes its running second within two, and stores the books as they stand."""
OVER: Final = "the recording is over"
SPOKEN: Final = frozenset({RecordKind.RECEIVED, RecordKind.SENT})
"""Other kinds are facts of the feed that recorded, and not of the venue."""


class RecordedSession:
    """Has the members of `FeedSession`. `speed`: 1 as it happened, 0 as fast as it goes."""

    def __init__(
        self,
        source: Capture,
        products: Sequence[str],
        channels: Sequence[Channel],
        sink: Sink,
        next_connection_id: Callable[[], int],
        speed: float,
    ) -> None:
        self._source = source
        self._products = tuple(products)
        self._channels = tuple(channels)
        self._sink = sink
        self._next_connection_id = next_connection_id
        self._speed = speed
        self._numbers: dict[int, int] = {}
        self.connection_id = 0
        self.connects = 0
        self.problem = "not begun yet"
        self.is_over = False

    @property
    def is_connected(self) -> bool:
        """Something may still come."""
        return self.connection_id != 0

    async def run(self) -> None:
        """Play it once, then wait to be cancelled."""
        self.problem = ""
        before_ns, count, portion = 0, 0, Portion()
        try:
            for record in self._source.records():
                at_ns = record.received_at_ns or self._time_of(record)
                await self._keep_pace(before_ns, at_ns)
                before_ns = at_ns or before_ns
                self._play(record)
                count += 1
                if portion.is_full_with(record.payload):
                    await asyncio.sleep(0)
                    await self._sink.settled()
            await asyncio.sleep(LAST_SECOND_S)
        finally:
            self.is_over = True
            self.connection_id = 0
            for number in self._numbers.values():
                self._sink.take(RecordKind.DISCONNECT, number, OVER.encode())
            self._numbers.clear()
        self.problem = f"{OVER}: {count:,} records"
        await asyncio.Event().wait()

    def follow(self, products: Iterable[str]) -> None:
        """It holds what it holds."""

    async def change(self, added: Iterable[str], gone: Iterable[str]) -> None:
        """As above."""

    async def subscribe(self, connection_id: int, product: str, refused: frozenset[str]) -> None:
        """As above."""

    async def resubscribe(self, connection_id: int, products: Sequence[str], channels: Sequence[Channel]) -> None:
        """A snapshot comes if one was recorded."""

    async def _keep_pace(self, before_ns: int, at_ns: int) -> None:
        if self._speed > 0 and 0 < before_ns < at_ns:
            await asyncio.sleep(min(SILENCE_MAX_S, (at_ns - before_ns) / 1e9 / self._speed))

    def _play(self, record: Record) -> None:
        kind, number = record.kind, record.connection_id
        if kind is RecordKind.CONNECT:
            self._disconnect(number, b"connected again")
            self._connect(number, record.payload)
        elif kind is RecordKind.DISCONNECT:
            self._disconnect(number, record.payload)
        elif kind is RecordKind.REST:
            self._answer(record.payload)
        elif kind in SPOKEN:
            if number not in self._numbers:
                self._connect(number, b"")
            self._sink.take(kind, self._numbers[number], record.payload)

    def _connect(self, number: int, payload: bytes) -> None:
        """A connection of the recording under a number of ours; one whose beginning was not recorded has one now."""
        try:
            recorded = msgspec.json.decode(payload, type=Connected)
            products, channels = recorded.products or self._products, recorded.channels
        except (msgspec.MsgspecError, UnicodeDecodeError):
            products, channels = self._products, ()
        channels = channels or tuple(channel.value for channel in self._channels)
        opened = Connected(self._source.name, self._source.websocket_url, products, channels)
        self.connection_id = self._numbers[number] = self._next_connection_id()
        self.connects += 1
        self._sink.take(RecordKind.CONNECT, self.connection_id, msgspec.json.encode(opened))

    def _disconnect(self, number: int, reason: bytes) -> None:
        ours = self._numbers.pop(number, None)
        if ours is not None:
            self._sink.take(RecordKind.DISCONNECT, ours, reason)
        self.connection_id = max(self._numbers.values(), default=0)

    def _answer(self, payload: bytes) -> None:
        """An answer over REST, about our number of its connection."""
        try:
            answer = RestAnswer.decode(payload)
        except InvalidRequest:
            return
        number = self._numbers.get(answer.request.connection_id, -1)
        request = msgspec.structs.replace(answer.request, connection_id=number)
        self._sink.take(RecordKind.REST, max(0, number), RestAnswer(request, answer.status, answer.body).encode())

    def _time_of(self, record: Record) -> int:
        """When a frame was sent, in recordings that kept no time of receipt; 0 where it does not say, or is long."""
        if record.kind is not RecordKind.RECEIVED or self._speed <= 0 or len(record.payload) > SLICE_BYTES:
            return 0
        parsed = self._source.parse(record.payload, 0)
        return parsed.sent_at_ns or max((getattr(event, "time_ns", 0) for event in parsed.events), default=0)
