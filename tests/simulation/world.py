"""Simulated time: a heap of things to do, in an order that depends on the seed alone.

Nothing in the simulation waits, reads a clock or draws a number but through here. Two moments that are equal happen in
the order in which they were planned.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class Timer(list[Any]):
    """[moment, sequence, callable or None, arguments]: the heap compares moments, then sequences."""

    def cancel(self) -> None:
        """What was planned does not happen. Safe after it did."""
        self[2] = None

    def when(self) -> float:
        """The moment."""
        moment: float = self[0]
        return moment


class World:
    """One history's time and chance. `now` is in seconds from its beginning."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.seed = seed
        self._heap: list[Timer] = []
        self._sequence = 0
        self.events = 0

    def chance(self, name: str) -> random.Random:
        """A source of numbers of one's own, so that one part's draws do not move another's."""
        return random.Random(f"{self.seed}:{name}")

    def at(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Timer:
        """Do something after a delay."""
        return self.at_moment(self.now + delay_s, call, *arguments)

    def at_moment(self, moment: float, call: Callable[..., object], *arguments: Any) -> Timer:
        """Do something at a moment."""
        self._sequence += 1
        timer = Timer((moment, self._sequence, call, arguments))
        heapq.heappush(self._heap, timer)
        return timer

    def run(self, until: float, is_over: Callable[[], bool] | None = None) -> None:
        """Let time pass up to a moment, or until `is_over` says so after some event."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            moment, _, call, arguments = heapq.heappop(heap)
            self.now = moment
            if call is None:
                continue
            self.events += 1
            call(*arguments)
            if is_over is not None and is_over():
                return
        self.now = max(self.now, until)


def cancel(timer: Timer | None) -> None:
    """What was planned does not happen. Safe after it did."""
    if timer is not None:
        timer.cancel()


class Process:
    """Something that can be killed, stopped (SIGSTOP) and continued; what it planned dies or waits with it.

    It is the `Clock` of whatever runs in it (`nodeagent/core/clock.py`).
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.life = 0
        self.is_alive = False
        self.is_stopped = False
        self._backlog: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def begin(self) -> None:
        """A new life: nothing that an earlier one planned happens any more."""
        self.life += 1
        self.is_alive, self.is_stopped = True, False
        self._backlog.clear()

    def end(self) -> None:
        """SIGKILL."""
        self.life += 1
        self.is_alive = False
        self._backlog.clear()

    def stop(self) -> None:
        """SIGSTOP."""
        self.is_stopped = True

    def go_on(self) -> None:
        """SIGCONT: everything that waited happens now, in order."""
        self.is_stopped = False
        backlog, self._backlog = self._backlog, []
        for call, arguments in backlog:
            self.after(0.0, call, *arguments)

    def after(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Timer:
        """Plan something of this life."""
        return self.world.at(delay_s, self._happen, self.life, call, arguments)

    def time(self) -> float:
        """The machine's monotonic clock."""
        return self.world.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Plan something of this life, at a moment."""
        return self.world.at_moment(max(when, self.world.now), self._happen, self.life, callback, ())

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Now if it can, when it goes on if it is stopped, never if it is dead."""
        if not self.is_alive:
            return
        if self.is_stopped:
            self._backlog.append((call, arguments))
        else:
            call(*arguments)

    def _happen(self, life: int, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if life != self.life or not self.is_alive:
            return
        if self.is_stopped:
            self._backlog.append((call, arguments))
        else:
            call(*arguments)
