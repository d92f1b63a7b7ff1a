"""What attempts report, gathered: one write for many, and no attempt waits for it.

A result leaves at the end of the loop's turn when nothing else waits to be run; while there is a queue it waits a
millisecond for others. That an attempt started is reported only if it still runs a few milliseconds later: one that has
ended says more.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Container
from typing import Final

from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import Kind, Output
from nodeagent.runner.replica.control import Control

RESULTS_AT_ONCE: Final = 64
RESULTS_GATHER_S: Final = 0.001
STARTED_AFTER_S: Final = 0.003


class Reporter:
    """On the loop's thread, but for `piece` and `deliver`. `running`: the tokens being worked on."""

    def __init__(self, control: Control, loop: asyncio.AbstractEventLoop, running: Container[int]) -> None:
        self._control = control
        self._loop = loop
        self._thread = threading.get_ident()
        self._running = running
        self._started: list[int] = []
        self._started_timer: asyncio.TimerHandle | None = None
        self._packed: deque[bytes] = deque()
        self._delivery = threading.Lock()
        self._pieces: deque[Output] = deque()
        self._is_flush_due = False
        self._gathering: asyncio.TimerHandle | None = None

    def started(self, token: int) -> None:
        """An attempt is being worked on."""
        self._started.append(token)
        if self._started_timer is None:
            self._started_timer = self._loop.call_later(STARTED_AFTER_S, self._tell_started)

    def ended(self, packed: bytes, *, more_to_come: bool) -> None:
        """A packed result. more_to_come: others wait to be run, so this one can wait for theirs."""
        self._packed.append(packed)
        if not more_to_come or len(self._packed) >= RESULTS_AT_ONCE:
            self._flush_soon()
        elif self._gathering is None and not self._is_flush_due:
            self._gathering = self._loop.call_later(RESULTS_GATHER_S, self.flush)

    def piece(self, piece: Output) -> None:
        """A piece of output, from any thread."""
        self._pieces.append(piece)
        if threading.get_ident() == self._thread:
            self._flush_soon()
        else:
            self._loop.call_soon_threadsafe(self._flush_soon)

    def flush(self) -> None:
        """Send what was gathered: pieces before the results that may end their attempts."""
        self._is_flush_due = False
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self.deliver()

    def deliver(self) -> None:
        """Send what was gathered, from any thread: what has ended does not wait for a loop that the next one blocks."""
        with self._delivery:  # so that no result overtakes the pieces before it
            packed = [self._packed.popleft() for _ in range(len(self._packed))]
            while self._pieces:
                self._control.send(frames.frame_output(self._pieces.popleft()), droppable=True)
            if packed:
                self._control.send(frames.frame_results(packed))

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def _tell_started(self) -> None:
        self._started_timer = None
        started = [token for token in self._started if token in self._running]
        self._started.clear()
        if started:
            self._control.send(frames.frame_tokens(Kind.STARTED, started))
