"""A simulated daemon's stream to the controller that leads. Lease, heartbeat and what waits to be sent are the shipped
ones; connecting is in the manner of nodeagent/link/stream.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.heartbeat import Heartbeat
from nodeagent.core.lease import Lease
from nodeagent.core.outgoing import Outgoing
from tests.simulation.network import Stream
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

WELCOME_TIMEOUT_S = 10.0


class DaemonLink(Process):
    """The stream of a daemon. What is said on it is the daemon's business."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.stream: Stream | None = None
        self._random = machine.random
        self._next_controller = 0
        self.outgoing = Outgoing(self.tell)

    def begin(self) -> None:
        """A new life, which knows nothing of the lease; what an earlier one knew, its replicas know too."""
        super().begin()
        self.stream = None
        self.outgoing = Outgoing(self.tell)
        self._lease = Lease(self, self.lease_is_over)
        self._heartbeat = Heartbeat(self, self._beat, self._proven)
        self._is_welcomed = False
        self._failures = 0
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

    def lease_renewed(self, until_s: float) -> None:
        """Exclusive attempts may run until then."""
        raise NotImplementedError

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
        self.outgoing.open(self.waiting_results())
        stream.send_up((name, hello))
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
        self._heartbeat.stop()
        self.outgoing.close()
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
            self._heartbeat.answered(message.beat_ack.seq)
        elif kind == "welcome":
            self._welcomed(message.welcome)
        elif kind is not None:
            if kind == "desired":
                self.machine.feed.obey(message.desired)
            self.obey(kind, message)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self._is_welcomed = True
        self._failures = 0
        self._lease.granted(self._hello_at, welcome.stop_exclusive_after_ms / 1000)
        self.machine.feed.is_report_due = True
        self.lease_renewed(self._lease.until_s)
        self._heartbeat.start(welcome.beat_interval_ms / 1000, lambda silent_s: self._give_up())
        self.tell()

    def _beat(self, seq: int) -> None:
        self.outgoing.beat(wire.Beat(seq=seq))

    def _proven(self, sent_at: float) -> None:
        self._lease.proven(sent_at)
        self.lease_renewed(self._lease.until_s)

    def tell(self) -> None:
        """Send what waits, soon: many facts, few messages."""
        if not self._is_drain_due and self.stream is not None:
            self._is_drain_due = True
            self.after(0.0001, self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        if self.stream is None or not self._is_welcomed:
            return
        report = self.machine.feed.report()
        if report is not None:
            self.stream.send_up(report)
        for message in self.outgoing.drain():
            self.stream.send_up(getattr(message, message.WhichOneof("body")))
