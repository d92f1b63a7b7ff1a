"""Simulated controllers: the order of things of controller/engine.py and controller/link/server.py, without asyncio.

The decisions and the words on the wire are the real ones (`decide`, `translate`); what is simulated is the shell around
them: turns, commits in flight, standing by, losing the lead without knowing, being killed anywhere and being stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from agentfarm.errors import FarmError, NotFound, Unavailable
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from controller.core import decide as core
from controller.core.commands import (
    AttemptsEnded,
    AttemptsStarted,
    Command,
    NodeStreamEnded,
    ReplicasReported,
    SubmitTasks,
    Tick,
)
from controller.core.model import FarmState, Instant, Limits, NodeName, Token
from controller.core.transition import Assign, CloseSession, Effect, Transition
from controller.engine import LEAD_CHECK_S
from controller.journal.memory import MemoryJournal
from controller.link import release_0_1, translate
from tests.simulation.checkers import Checkers
from tests.simulation.database import Database
from tests.simulation.network import Stream
from tests.simulation.world import Process, World

BEAT_INTERVAL_S = 1.0
STOP_EXCLUSIVE_AFTER_S = 6.0
ASK_DEADLINE_S = 10.0
LEAD_POLL_S = 0.25

Answered = Callable[[Any], None]


class Session:
    """One node's stream, as the link server sees it."""

    def __init__(self, controller: Controller, number: int, node: NodeName, stream: Stream) -> None:
        self.controller = controller
        self.number = number
        self.node = node
        self.stream = stream
        self.is_joined = False
        self.early: list[Any] = []


class Controller(Process):
    """One controller process. It leads, stands by, or is dead."""

    def __init__(self, world: World, name: str, database: Database, limits: Limits, checks: Checkers) -> None:
        super().__init__(world)
        self.name = name
        self.state: FarmState | None = None
        self.mono_offset_s = world.chance(name).uniform(10.0, 100_000.0)
        self.wall_offset_s = 1_700_000_000.0
        self.seed = world.seed
        self._random = world.chance(f"{name}.choices")
        self._database = database
        self.limits = limits
        self._checks = checks
        self._journal = MemoryJournal(database.tables)
        self._waiting: list[tuple[Command, Answered | None]] = []
        self.batch: list[tuple[Command, Answered | None]] = []
        self._is_busy = False
        self._is_turn_due = False
        self._checked_at = 0.0
        self._tick_life = 0
        self.sessions: dict[int, Session] = {}
        self._next_session = 1
        self.loaded_at = Instant(0.0, 0.0)

    @property
    def now(self) -> Instant:
        """The moment on this controller's clocks. Its wall clock may jump; its monotonic one never."""
        return Instant(self.world.now + self.mono_offset_s, self.world.now + self.wall_offset_s)

    # -------------------------------------------------------------- life

    def boot(self) -> None:
        """Start the process."""
        self.begin()
        self._journal = MemoryJournal(self._database.tables)
        self._reset()
        self._next_session = 1
        self._lead(0.1)

    def kill(self) -> None:
        """SIGKILL: a commit on its way may still be applied; the kernel closes every stream."""
        self.end()
        self.state = None
        for session in list(self.sessions.values()):
            session.stream.close("up")
        self._reset()
        self.world.at(0.01, self._database.unlock, self)

    def _reset(self) -> None:
        self.state = None
        self._waiting, self.batch = [], []
        self._is_busy = self._is_turn_due = False
        self.sessions = {}

    # -------------------------------------------------------------- leading

    def _lead(self, wait_s: float) -> None:
        try:
            if self._database.try_lock(self):
                epoch = self._journal.take_lead()
                self.after(self._database.read_s(), self._load, epoch, wait_s)
                return
            self.after(LEAD_POLL_S, self._lead, wait_s)
        except FarmError:
            self.after(wait_s, self._lead, min(2 * wait_s, 2.0))

    def _load(self, epoch: int, wait_s: float) -> None:
        try:
            self._database.check()
            state = self._journal.load(self.limits, self.now)
        except FarmError as problem:
            self._checks.commit_failed(problem)
            self._database.unlock(self)
            self.after(wait_s, self._lead, min(2 * wait_s, 2.0))
            return
        state.seed = self.seed ^ epoch
        self.loaded_at = self.now
        self.state = state
        self._is_busy = self._is_turn_due = False
        self._wake(0.0)

    def _recover(self) -> None:
        """Throw the state away and read it again; streams are closed, so nodes come back and say what they hold."""
        self.state = None
        for session in list(self.sessions.values()):
            self._close(session)
        waiting, self._waiting = self._waiting, []
        self._refuse(waiting)
        self._lead(0.1)

    def _refuse(self, batch: Sequence[tuple[Command, Answered | None]]) -> None:
        for _, answered in batch:
            if answered is not None:
                answered(Unavailable("Not known whether this was stored."))

    # -------------------------------------------------------------- commands

    def ask(self, command: Command, answered: Answered) -> None:
        """A command that wants an answer."""
        if self.state is None:
            answered(Unavailable("This controller does not lead."))
            return
        self._waiting.append((command, answered))
        self._wake(0.0)

    def tell(self, command: Command) -> None:
        """A fact."""
        if self.state is not None:
            self._waiting.append((command, None))
            self._wake(0.0)

    def _wake(self, delay_s: float) -> None:
        if not self._is_busy and not self._is_turn_due and self.state is not None:
            self._is_turn_due = True
            self._tick_life += 1
            self.after(delay_s + 0.0002, self._turn)

    def _tick(self, number: int) -> None:
        if number == self._tick_life:
            self._wake(0.0)

    # -------------------------------------------------------------- turns

    def _turn(self) -> None:
        self._is_turn_due = False
        if self._is_busy or self.state is None:
            return
        batch, self._waiting = self._waiting, []
        self.batch = batch or [(Tick(), None)]
        try:
            commands = self._with_known_keys([command for command, _ in self.batch])
        except FarmError:
            self._failed()
            return
        self._checks.before_turn(self)
        transition = core.decide(self.state, commands, self.now)
        self._checks.decided(self, transition)
        self._is_busy = True
        now = self.world.now
        if not transition.changes.is_empty() or now - self._checked_at > LEAD_CHECK_S:
            self._checked_at = now
            self._commit(transition)
        else:
            self._publish(transition)

    def _commit(self, transition: Transition) -> None:
        assert self.state is not None
        life = self.life

        def answered(problem: FarmError | None) -> None:
            if life == self.life:
                self.after(0.0, self._committed, transition, problem)

        self._database.commit(self._journal, transition.changes, self.state.epoch, answered)

    def _committed(self, transition: Transition, problem: FarmError | None) -> None:
        if problem is not None:
            self._checks.commit_failed(problem)
            self._failed()
        else:
            self._publish(transition)

    def _failed(self) -> None:
        batch, self.batch = self.batch, []
        self._refuse(batch)
        self._is_busy = False
        self._recover()

    def _publish(self, transition: Transition) -> None:
        """The commit is durable: let the world know."""
        batch, self.batch = self.batch, []
        for task in transition.forget_inputs:
            task.input = None
        self._checks.published(self, transition)
        for index, (_, answered) in enumerate(batch):
            if answered is not None:
                answered(transition.answers[index])
        try:
            for effect in transition.effects:
                self.deliver(self._with_inputs(effect) if isinstance(effect, Assign) else effect)
        except FarmError:
            self._is_busy = False
            self._recover()
            return
        self._is_busy = False
        self._tick_life += 1
        due_s = max(0.0, (transition.next_due or 0.0) - self.now.mono)
        if self._waiting or due_s <= 0.0:
            self._wake(0.0)
        else:
            self.after(due_s, self._tick, self._tick_life)

    def _with_known_keys(self, commands: list[Command]) -> list[Command]:
        keys = [
            task.options.idempotency_key
            for command in commands
            if isinstance(command, SubmitTasks)
            for task in command.tasks
            if task.options is not None and task.options.idempotency_key is not None
        ]
        if not keys:
            return commands
        self._database.check()
        known = self._journal.find_keys(keys)
        return [dataclasses.replace(c, known_keys=known) if isinstance(c, SubmitTasks) else c for c in commands]

    def _with_inputs(self, effect: Assign) -> Assign:
        missing = [lease.task for lease in effect.leases if lease.input is None]
        if not missing:
            return effect
        self._database.check()
        inputs = self._journal.read_inputs(missing)
        leases = [
            lease if lease.input is not None else dataclasses.replace(lease, input=inputs[lease.task])
            for lease in effect.leases
        ]
        return dataclasses.replace(effect, leases=leases)

    # -------------------------------------------------------------- the link

    def deliver(self, effect: Effect) -> None:
        """Carry out one effect of a committed turn."""
        session = self.sessions.get(effect.session)
        if session is None:
            return
        if isinstance(effect, CloseSession):
            self._close(session)
            return
        self._checks.sent(effect)
        session.stream.send_down(translate.message(effect))

    def accept(self, stream: Stream, node: str, hello: wire.Hello) -> None:
        """A node opens a stream with its Hello."""
        if self.state is None or NodeName(node) not in self.state.nodes:
            stream.close("up")
            return
        number, self._next_session = self._next_session, self._next_session + 1
        session = self.sessions[number] = Session(self, number, NodeName(node), stream)
        stream.send_down(translate.welcome(self.state.epoch, self.limits, BEAT_INTERVAL_S, STOP_EXCLUSIVE_AFTER_S))
        answered = self._once(lambda answer: self._joined(session, answer))
        self.ask(translate.joined(session.node, number, hello), answered)
        self.after(ASK_DEADLINE_S, answered, Unavailable("The controller did not answer in time."))

    def _once(self, answered: Answered) -> Answered:
        is_done = False

        def once(answer: Any) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                answered(answer)

        return once

    def _joined(self, session: Session, answer: Any) -> None:
        if self.sessions.get(session.number) is not session:
            return
        if isinstance(answer, FarmError):
            self._close(session)
            return
        session.is_joined = True
        for message in session.early:
            self._read(session, message)
        session.early.clear()

    def _close(self, session: Session) -> None:
        session.stream.close("up")
        self._ended(session)

    def _ended(self, session: Session) -> None:
        if self.sessions.get(session.number) is session:
            del self.sessions[session.number]
            self.tell(NodeStreamEnded(session.node, session.number))

    def heard(self, stream: Stream, message: Any) -> None:
        """From a node."""
        self.soon(self._heard, stream, message)

    def broken(self, stream: Stream) -> None:
        """A stream is gone."""
        self.soon(self._broken, stream)

    def _broken(self, stream: Stream) -> None:
        for session in list(self.sessions.values()):
            if session.stream is stream:
                self._ended(session)

    def _heard(self, stream: Stream, message: Any) -> None:
        if isinstance(message, tuple):
            node, hello = message
            self.accept(stream, node, hello)
            return
        for session in self.sessions.values():
            if session.stream is stream:
                if session.is_joined:
                    self._read(session, message)
                else:
                    session.early.append(message)
                return

    def _read(self, session: Session, said: Any) -> None:
        node, number = session.node, session.number
        if isinstance(said, wire.Beat):
            for command in translate.beat(node, number, said):
                self.tell(command)
        elif isinstance(said, wire.AttemptResults):
            self.tell(AttemptsEnded(node, number, translate.results(said)))
        elif isinstance(said, wire.AttemptsStarted):
            self.tell(AttemptsStarted(node, number, tuple(Token(token) for token in said.tokens)))
        elif isinstance(said, wire.ReplicaReport):
            self.tell(ReplicasReported(node, number, translate.replica_news(said.replicas)))
        elif isinstance(said, market_pb2.MarketReport):
            self.tell(release_0_1.market_reported(node, number, said))
        else:
            raise NotFound(f"no such message: {said}")
