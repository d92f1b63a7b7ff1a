"""A process as one life of a simulated daemon sees it: pid, signals, and the daemon's end of its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.agents import SOCKET_S, ReplicaProcess

if TYPE_CHECKING:
    from tests.simulation.daemons import Daemon


class Connection:
    """See `Process` of nodeagent/core/seat.py. What is sent before it is open goes nowhere."""

    def __init__(self, daemon: Daemon, process: ReplicaProcess) -> None:
        self.process = process
        self.pid = process.pid
        self.was_killed = False
        self._life = daemon.life
        self._is_open = False

    def open(self, answers_after_s: float) -> None:
        """Reach its socket; it says hello after a while, when it looks there."""
        self._is_open = True
        self._accepted_at = self.process.world.now + answers_after_s
        self.process.after(answers_after_s, self.process.accept, self._life)

    def send(self, data: bytes) -> None:
        if self._is_open:
            delay_s = max(SOCKET_S, self._accepted_at - self.process.world.now)
            self.process.after(delay_s, self.process.receive, self._life, data)

    def kill(self) -> None:
        self.was_killed = True
        self.process.die()

    def detach(self) -> None:
        """Nobody stops a simulated daemon in order."""
