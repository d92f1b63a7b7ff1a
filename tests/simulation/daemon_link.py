"""A simulated daemon's stream to whoever leads: hello, beats, the lease, and what waits to be told.

In the manner of nodeagent/link/stream.py, lease.py and outgoing.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from tests.simulation.network import Stream
from tests.simulation.world import Process, Timer

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

WELCOME_TIMEOUT_S = 10.0
UNANSWERED_INTERVALS_MAX = 5
UNPROVEN = -1e9


class DaemonLink(Process):
    """The stream of a daemon. What is said on it is the daemon's business."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.stream: Stream | None = None
        self._random = machine.random
        self._next_controller = 0

    def begin(self) -> None:
        """A new life, which knows nothing of the lease; what an earlier one knew, its replicas know too."""
        super().begin()
        self.stream = None
        self._proven_at = UNPROVEN
        self._lease_timer: Timer | None = None
        self._stop_after_s = 6.0
        self._seq = 0
        self._beats: dict[int, float] = {}  # the one that waits for its answer
        self._beat_interval_s = 0.0
        self._is_welcomed = False
        self._failures = 0
        self._reports: dict[int, wire.ReplicaStatus] = {}
        self._started: list[int] = []
        self._results: list[wire.AttemptResult] = []
        self._is_drain_due = False
        self.machine.feed.begin()

    # -------------------------------------------------------------- what the daemon says and does

    def hello(self) -> wire.Hello:
        """Everything the controller must know."""
        raise NotImplementedError

    def waiting_results(self) -> list[wire.AttemptResult]:
        """Results that wait for acknowledgement."""
        raise NotImplementedError

    def obey(self, kind: str, message: wire.ControllerMessage) -> None:
        """An order."""
        raise NotImplementedError

    def lease_is_over(self) -> None:
        """Nothing was heard for too long."""
        raise NotImplementedError

    @property
    def lease_until(self) -> float:
        """As far as this life knows."""
        return self._proven_at + self._stop_after_s

    # -------------------------------------------------------------- the stream

    def connect(self) -> None:
        """Try the next controller."""
        controllers = self.machine.controllers
        controller = controllers[self._next_controller % len(controllers)]
        self._next_controller += 1
        network, name = self.machine.network, self.machine.name
        if network.is_blocked(name, "up") or network.is_blocked(name, "down"):
            self.after(WELCOME_TIMEOUT_S, self._again)
            return
        if not controller.is_alive:
            self.after(0.001, self._again)
            return
        stream = self.stream = network.open(name, self, controller)
        self._is_welcomed = False
        self._hello_at = self.world.now
        hello = self.hello()
        self.machine.feed.describe(hello)
        self._reports.clear()
        self._started.clear()
        self._results = self.waiting_results()
        stream.send_up((name, hello))
        self.tell()
        self.after(WELCOME_TIMEOUT_S, self._unwelcome, stream)

    def _unwelcome(self, stream: Stream) -> None:
        if self.stream is stream and not self._is_welcomed:
            self._give_up()

    def _again(self) -> None:
        self._failures += 1
        wait_s = min(1.0, 0.1 * 2 ** min(self._failures, 10))
        self.after(wait_s * (0.5 + self._random.random() / 2), self.connect)

    def _give_up(self) -> None:
        if self.stream is not None:
            self.stream.close("down")
        self._lost()

    def _lost(self) -> None:
        self.stream = None
        self._reports.clear()
        self._started.clear()
        self._results.clear()
        self._again()

    def broken(self, stream: Stream) -> None:
        """The stream is gone."""
        self.soon(self._broken, stream)

    def _broken(self, stream: Stream) -> None:
        if self.stream is stream:
            self._lost()

    def heard(self, stream: Stream, message: wire.ControllerMessage) -> None:
        """Something came on a stream."""
        self.soon(self.heard_controller, stream, message)

    def heard_controller(self, stream: Stream, message: wire.ControllerMessage) -> None:
        """A message; what comes on another stream than the present one is ignored."""
        if self.stream is not stream:
            return
        kind = message.WhichOneof("body")
        if kind == "beat_ack":
            self._acknowledged(message.beat_ack.seq)
        elif kind == "welcome":
            self._welcomed(message.welcome)
        elif kind is not None:
            if kind == "desired":
                self.machine.feed.obey(message.desired)
            self.obey(kind, message)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self._is_welcomed = True
        self._failures = 0
        self._stop_after_s = welcome.stop_exclusive_after_ms / 1000
        self._beats.clear()
        self.proven(self._hello_at)
        self.machine.feed.is_report_due = True
        self._beat(self.stream, welcome.beat_interval_ms / 1000)
        self.tell()

    def _beat(self, stream: Stream | None, interval_s: float) -> None:
        """The next goes when this one was answered."""
        if self.stream is not stream or stream is None:
            return
        self._seq += 1
        self._beat_interval_s = interval_s
        self._beats[self._seq] = self.world.now
        stream.send_up(wire.Beat(seq=self._seq))
        self.after(UNANSWERED_INTERVALS_MAX * interval_s, self._unanswered, stream, self._seq)

    def _unanswered(self, stream: Stream, seq: int) -> None:
        if self.stream is stream and seq in self._beats:
            self._give_up()

    def _acknowledged(self, seq: int) -> None:
        sent_at = self._beats.pop(seq, None)
        if sent_at is not None:
            self.proven(sent_at)
            due_s = max(0.0, sent_at + self._beat_interval_s - self.world.now)
            self.after(due_s, self._beat, self.stream, self._beat_interval_s)

    def tell(self) -> None:
        """Send what waits, soon: many facts, few messages."""
        if not self._is_drain_due and self.stream is not None:
            self._is_drain_due = True
            self.after(0.0001, self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        if self.stream is None or not self._is_welcomed:
            return
        if self._reports:
            self.stream.send_up(wire.ReplicaReport(replicas=list(self._reports.values())))
            self._reports.clear()
        report = self.machine.feed.report()
        if report is not None:
            self.stream.send_up(report)
        if self._started:
            self.stream.send_up(wire.AttemptsStarted(tokens=self._started))
            self._started = []
        if self._results:
            self.stream.send_up(wire.AttemptResults(results=self._results))
            self._results = []

    def report_replica(self, status: wire.ReplicaStatus) -> None:
        """Tell the newest state of a replica."""
        if self.stream is not None:
            self._reports.pop(status.replica_id, None)
            self._reports[status.replica_id] = copy_of(status)
            self.tell()

    # -------------------------------------------------------------- the lease

    def proven(self, sent_at: float) -> None:
        """The controller answered what was sent then: the lease holds from there, and the replicas are told."""
        self._proven_at = max(self._proven_at, sent_at)
        until = self._proven_at + self._stop_after_s
        for process in self.machine.processes.values():
            process.lease_holds_until(until)
        if self._lease_timer is None:
            self._lease_timer = self.after(max(0.0, until - self.world.now), self._look_at_lease)

    def _look_at_lease(self) -> None:
        self._lease_timer = None
        until = self._proven_at + self._stop_after_s
        if self.world.now < until - 1e-9:
            self._lease_timer = self.after(until - self.world.now, self._look_at_lease)
        else:
            self.lease_is_over()


def copy_of(status: wire.ReplicaStatus) -> wire.ReplicaStatus:
    made = wire.ReplicaStatus()
    made.CopyFrom(status)
    return made
