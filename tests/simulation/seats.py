"""One replica as a simulated daemon knows it."""

from __future__ import annotations

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.restarts import Crashes
from tests.simulation.agents import AgentSpec, ReplicaProcess
from tests.simulation.world import Timer


class Seat:
    """One replica as its daemon knows it."""

    __slots__ = (
        "crashes", "id", "is_ready", "kill_timer", "presence", "process", "spec", "status", "wanted",
        "was_killed",
    )  # fmt: skip

    def __init__(self, wanted: wire.DesiredReplica) -> None:
        self.wanted = wanted
        self.id: int = wanted.replica_id
        self.spec = AgentSpec.read(wanted.spec_json)
        self.status = wire.ReplicaStatus(replica_id=self.id, state=wire.REPLICA_STATE_STARTING)
        self.presence = Presence.ACTIVE
        self.process: ReplicaProcess | None = None
        self.is_ready = False
        self.was_killed = False
        self.crashes = Crashes()
        self.kill_timer: Timer | None = None

    @property
    def takes_work(self) -> bool:
        return self.process is not None and self.is_ready and self.presence is not Presence.STOPPING
