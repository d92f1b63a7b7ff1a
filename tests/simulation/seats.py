"""One replica as a simulated daemon knows it, and the daemon's end of its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.agents.view import SpecView
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.restarts import Crashes
from tests.simulation.agents import SOCKET_S, ReplicaProcess, kind_of
from tests.simulation.world import Timer

if TYPE_CHECKING:
    from tests.simulation.daemons import Daemon


class Connection:
    """A process as one life of a daemon sees it. What is sent before it is open goes nowhere."""

    def __init__(self, daemon: Daemon, process: ReplicaProcess) -> None:
        self.process = process
        self._life = daemon.life
        self._is_open = False

    def open(self, answers_after_s: float) -> None:
        """Reach its socket; it says hello after a while, when it looks there."""
        self._is_open = True
        self._accepted_at = self.process.world.now + answers_after_s
        self.process.after(answers_after_s, self.process.accept, self._life)

    def send(self, data: bytes) -> None:
        """See `Process` of nodeagent/core/workload.py."""
        if self._is_open:
            delay_s = max(SOCKET_S, self._accepted_at - self.process.world.now)
            self.process.after(delay_s, self.process.receive, self._life, data)


class Seat:
    """One replica as its daemon knows it."""

    __slots__ = (
        "_daemon", "crashes", "id", "is_ready", "kill_timer", "kind", "presence", "process", "spec", "status",
        "wanted", "was_killed",
    )  # fmt: skip

    def __init__(self, daemon: Daemon, wanted: wire.DesiredReplica) -> None:
        self.wanted = wanted
        self.id: int = wanted.replica_id
        self.spec = SpecView.from_json(wanted.spec_json)
        self.kind = kind_of(wanted.spec_json)
        self.status = wire.ReplicaStatus(replica_id=self.id, state=wire.REPLICA_STATE_STARTING)
        self.presence = Presence.ACTIVE
        self.process: Connection | None = None
        self.is_ready = False
        self.was_killed = False
        self.crashes = Crashes()
        self.kill_timer: Timer | None = None
        self._daemon = daemon

    @property
    def takes_work(self) -> bool:
        """See `Holder` of nodeagent/core/workload.py, and the next two."""
        return self.process is not None and self.is_ready and self.presence is not Presence.STOPPING

    def settle(self) -> None:
        self._daemon.settle(self)

    def kill(self, why: str) -> None:
        del why
        self._daemon.kill(self)
