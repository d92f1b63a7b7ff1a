"""The control thread: the replica's socket, served apart from the event loop.

An agent that blocks its loop still answers PING, and says for how long it has been blocked. One daemon is served
at a time; the newest wins, because an older connection can only be that of a daemon that is gone.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import FrameReader, Kind, Pong, ProtocolError
from nodeagent.runner.replica.lease import ReplicaLease
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.orders import Orders, announcement, obey

READ_BYTES: Final = 256 * 1024
OUTPUT_BACKLOG_BYTES_MAX: Final = 4 * 2**20
"""Output pieces a slow daemon may leave waiting; beyond it the oldest are dropped, and counted."""
CHORES_EVERY_S: Final = 0.5
ALONE_CHORES_EVERY_S: Final = 10.0


class Control:
    """Owns the listening socket, the daemon's connection and what waits to be written to it."""

    def __init__(
        self,
        listener: socket.socket,
        ledger: Ledger,
        lease: ReplicaLease,
        hello: Callable[[], dict[str, object]],
        chores: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._ledger = ledger
        self._lease = lease
        self._hello = hello
        self._chores = chores
        self._orders: Orders | None = None
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._reader = FrameReader()
        self._backlog: deque[tuple[bytes, bool]] = deque()
        self._droppable_bytes = 0
        self._dropped = 0
        self._probed_at: float | None = None
        self._heard_at = time.monotonic()
        self._stopping = threading.Event()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, name="agentfarm-control", daemon=True)
        os.register_at_fork(after_in_child=self._close_in_child)

    def start(self, orders: Orders) -> None:
        """Begin to serve."""
        self._orders = orders
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_r, selectors.EVENT_READ, self._woken)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Write what waits, as far as the daemon takes it before the deadline, and end the thread."""
        self._stopping.set()
        self._wake()
        self._thread.join(deadline_s)

    def send(self, data: bytes, *, droppable: bool = False) -> None:
        """Send a frame to the daemon from any thread; without one it is dropped (the ledger holds what matters)."""
        with self._lock:
            if self._connection is None:
                return
            if self._backlog:
                self._queue(data, droppable)
                return
            rest = self._write(data)
            if rest:
                self._backlog.append((rest, False))  # partly written: it has to follow
                self._wake()

    @property
    def silence_s(self) -> float:
        """For how long no daemon has been heard. One that lives is heard every second while there is work."""
        return time.monotonic() - self._heard_at

    def loop_turned(self) -> None:
        """The event loop answers the last probe."""
        self._probed_at = None

    # -------------------------------------------------------------- the thread

    def _serve(self) -> None:
        chores_at = time.monotonic() + CHORES_EVERY_S
        while not (self._stopping.is_set() and not self._backlog):
            busy = self._connection is not None and bool(self._backlog)
            for key, events in self._selector.select(self._patience_s(busy)):
                key.data(events)
            if time.monotonic() >= chores_at:
                self._chores()
                chores_at = time.monotonic() + CHORES_EVERY_S

    def _patience_s(self, busy: bool) -> float | None:
        """How long to wait for a daemon to speak. A daemon pings often enough for the chores of an idle replica."""
        if busy or self._stopping.is_set() or self._ledger.counts != (0, 0):
            return CHORES_EVERY_S
        return None if self._connection is not None else ALONE_CHORES_EVERY_S

    def _accept(self, _events: int) -> None:
        with suppress(BlockingIOError, InterruptedError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._drop_connection()
            self._heard_at = time.monotonic()
            with self._lock:
                self._connection = connection
                self._reader = FrameReader()
            self._selector.register(connection, selectors.EVENT_READ, self._ready)
            self.announce()
            assert self._orders is not None
            self._orders.connected()

    def announce(self) -> None:
        """Say who we are and what is in hand."""
        for data in announcement(self._ledger, self._hello()):
            self.send(data)

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ:
            self._read()

    def _read(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        try:
            if not data:
                raise ProtocolError("the daemon went away")
            self._heard_at = time.monotonic()
            for kind, body in self._reader.feed(data):
                self._obey(kind, body)
        except (ProtocolError, ValueError, ArithmeticError, IndexError):
            self._drop_connection()

    def _obey(self, kind: int, body: bytes) -> None:
        assert self._orders is not None
        if kind == Kind.PING:
            self._pong(frames.read_ping(body))
        else:
            obey(kind, body, self._ledger, self._lease, self._orders, self.send)

    def _pong(self, seq: int) -> None:
        assert self._orders is not None
        now = time.monotonic()
        blocked_s = 0.0 if self._probed_at is None else now - self._probed_at
        if self._probed_at is None:
            self._probed_at = now
            self._orders.probe()
        _, waiting = self._ledger.counts
        self.send(frames.frame_pong(Pong(seq, blocked_s, waiting, self._dropped, self._ledger.running)))

    # -------------------------------------------------------------- writing

    def _write(self, data: bytes) -> bytes:
        """Write what the kernel takes; returns the rest. A broken connection takes everything: it is gone."""
        assert self._connection is not None
        try:
            sent = self._connection.send(data)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            return b""
        return data[sent:] if sent < len(data) else b""

    def _queue(self, data: bytes, droppable: bool) -> None:
        self._backlog.append((data, droppable))
        if not droppable:
            return
        self._droppable_bytes += len(data)
        while self._droppable_bytes > OUTPUT_BACKLOG_BYTES_MAX:
            oldest = next(index for index, entry in enumerate(self._backlog) if entry[1])
            self._droppable_bytes -= len(self._backlog[oldest][0])
            del self._backlog[oldest]
            self._dropped += 1

    def _flush(self) -> None:
        with self._lock:
            while self._backlog and self._connection is not None:
                data, droppable = self._backlog.popleft()
                if droppable:
                    self._droppable_bytes -= len(data)
                rest = self._write(data)
                if rest:
                    self._backlog.appendleft((rest, False))
                    return
        self._watch_writes()

    def _woken(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_r, 4096)
        self._watch_writes()

    def _watch_writes(self) -> None:
        if self._connection is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
            self._selector.modify(self._connection, events, self._ready)

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_w, b"x")

    def _drop_connection(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._backlog.clear()
            self._droppable_bytes = 0
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()

    def _close_in_child(self) -> None:
        """A process that the agent forks must not hold our sockets open."""
        for fd in (self._wake_r, self._wake_w):
            with suppress(OSError):
                os.close(fd)
        self._selector.close()
        self._listener.close()
        if self._connection is not None:
            self._connection.close()
