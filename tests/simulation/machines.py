"""Simulated machines: power, disk, processes and the daemon on them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from agentfarm.agents.view import SpecView
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outbox import Row
from tests.simulation.agents import ReplicaProcess, Step
from tests.simulation.checkers import Checkers
from tests.simulation.controllers import Controller
from tests.simulation.daemons import Daemon
from tests.simulation.feeds import Feed
from tests.simulation.network import Network
from tests.simulation.world import World


@dataclass(slots=True)
class Disk:
    """What survives the daemon and the power: stored results, and what each seat was asked to be."""

    outbox: dict[int, Row] = field(default_factory=dict)
    seats: dict[int, tuple[wire.DesiredReplica, int, wire.ReplicaStatus | None]] = field(default_factory=dict)
    is_full: bool = False


class Machine:
    """One microserver."""

    def __init__(
        self, world: World, name: str, memory_mib: int, network: Network, controllers: list[Controller],
        checks: Checkers,
    ) -> None:  # fmt: skip
        self.world = world
        self.name = name
        self.memory_mib = memory_mib
        self.network = network
        self.controllers = controllers
        self.checks = checks
        self.random: random.Random = world.chance(f"machine {name}")
        self.disk = Disk()
        self.processes: dict[int, ReplicaProcess] = {}
        self.scripts: dict[int, list[Step]] = {}
        self.feed = Feed(self)
        self.daemon = Daemon(self)
        self.has_power = False
        self.zygote_back_at = 0.0
        self._pids = 1_000

    def boot(self) -> None:
        """Power on; the daemon is started by the system."""
        if not self.has_power:
            self.has_power = True
            self.daemon.boot()

    def cut_power(self) -> None:
        """Everything on it is gone at once, and nobody is told."""
        if not self.has_power:
            return
        self.has_power = False
        self.daemon.end()
        self.daemon.stream = None
        self.network.vanish(self.name, "down")
        for process in list(self.processes.values()):
            process.die()

    def kill_daemon(self) -> None:
        """SIGKILL: replicas live on; the kernel closes the stream."""
        if self.daemon.is_alive:
            self.daemon.end()
            if self.daemon.stream is not None:
                self.daemon.stream.close("down")
            self.daemon.stream = None

    def start_daemon(self) -> None:
        """The system starts it again."""
        if self.has_power and not self.daemon.is_alive:
            self.daemon.boot()

    def fork(self, replica_id: int, spec: SpecView) -> ReplicaProcess:
        """A new replica process."""
        self._pids += 1
        process = self.processes[replica_id] = ReplicaProcess(self, replica_id, spec, self._pids)
        return process

    def process_gone(self, process: ReplicaProcess, working_on: frozenset[int]) -> None:
        """The kernel tells the daemon, if there is one."""
        if self.processes.get(process.replica_id) is process:
            del self.processes[process.replica_id]
        if self.daemon.is_alive:
            self.daemon.after(0.001, self.daemon.gone, process, working_on)
