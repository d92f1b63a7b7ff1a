"""A simulated daemon's end of its stream to the controller that leads. What is said on it is decided by the shipped
session; the network, and the time that everything takes, are simulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.session import WELCOME_TIMEOUT_S, Session
from tests.simulation.network import Stream
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

GATHER_S = 0.0001


class DaemonLink(Process):
    """The border that nodeagent/link/stream.py is to real daemons."""

    session: Session

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.stream: Stream | None = None
        self._random = machine.random
        self._next_controller = 0
        self.outgoing = Outgoing(self.tell)

    def begin(self) -> None:
        """A new life, with nothing in memory."""
        super().begin()
        self.stream = None
        self.outgoing = Outgoing(self.tell)
        self._is_welcomed = self._is_drain_due = False

    def connect(self) -> None:
        """Try the next controller."""
        self._tried_at = self.world.now
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
        hello = self.session.hello()
        self.machine.checks.introduced(self.machine, hello)
        stream.send_up((name, hello))
        self.after(WELCOME_TIMEOUT_S, self._unwelcome, stream)

    def _unwelcome(self, stream: Stream) -> None:
        if self.stream is stream and not self._is_welcomed:
            self._give_up()

    def _again(self) -> None:
        self.after(self.session.retry_s(self._tried_at, self._random.random()), self.connect)

    def _give_up(self) -> None:
        if self.stream is not None:
            self.stream.close("down")
        self._lost()

    def _lost(self) -> None:
        self.stream = None
        self.session.ended()
        self._again()

    def broken(self, stream: Stream) -> None:
        """The stream is gone."""
        self.soon(self._broken, stream)

    def _broken(self, stream: Stream) -> None:
        if self.stream is stream:
            self._lost()

    def heard(self, stream: Stream, message: wire.ControllerMessage) -> None:
        """Something came on a stream."""
        self.soon(self._heard, stream, message)

    def _heard(self, stream: Stream, message: wire.ControllerMessage) -> None:
        """A message; what comes on another stream than the present one is ignored."""
        if self.stream is not stream:
            return
        if self._is_welcomed:
            self.session.take(message)
        elif message.HasField("welcome"):
            self._is_welcomed = True
            self.session.welcomed(message.welcome, lambda silent_s: self._give_up())
            self.tell()

    def tell(self) -> None:
        """Send what waits, soon: many facts, few messages."""
        if not self._is_drain_due and self.stream is not None:
            self._is_drain_due = True
            self.after(GATHER_S, self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        if self.stream is None or not self._is_welcomed:
            return
        for message in self.outgoing.drain():
            self.stream.send_up(getattr(message, message.WhichOneof("body")))
