"""Simulated controllers: the shipped turns (controller/turns.py) on simulated time, and streams without gRPC.

The order of a turn, the decisions and the words on the wire are the real ones. Simulated is what stands around them:
how long a commit takes, standing by, losing the lead without knowing, being killed anywhere, and being stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentfarm.errors import FarmError, NotFound, Unavailable
from agentfarm.limits import BEAT_INTERVAL_S, STOP_EXCLUSIVE_AFTER_S
from agentfarm.wire import link_pb2 as wire
from controller import turns
from controller.core.commands import (
    AttemptsEnded,
    AttemptsStarted,
    Command,
    NodeStreamEnded,
    ReplicasReported,
)
from controller.core.model import FarmState, Instant, Limits, NodeName, Token
from controller.core.transition import CloseSession, Effect, Transition
from controller.journal.errors import DataRefused
from controller.journal.memory import MemoryJournal
from controller.link import translate
from controller.metrics import EngineMetrics
from tests.simulation.checkers import Checkers
from tests.simulation.database import Database
from tests.simulation.network import Stream
from tests.simulation.world import Process, World

ASK_DEADLINE_S = 10.0
LEAD_POLL_S = 0.25
TURN_S = 0.0002
"""From the first waiting command to the turn that takes it."""

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


class _Outside:
    """Everybody who hears of a controller's turns; the checkers hear all of it."""

    def __init__(self, controller: Controller, checks: Checkers) -> None:
        self._controller, self._checks = controller, checks

    def send(self, effects: Sequence[Effect]) -> None:
        """Send effects to nodes."""
        for effect in effects:
            self._controller.deliver(effect)

    def answer(self, answers: Sequence[tuple[Answered, object]]) -> None:
        """Answer callers."""
        for answered, answer in answers:
            answered(answer)

    def tell(self, transition: Transition, state: FarmState) -> None:
        """A turn is durable, as the controller believes."""
        self._checks.published(self._controller, transition)

    def lead(self, state: FarmState) -> None:
        """The state was read."""
        self._controller.loaded_at = self._controller.now

    def refused(self, problem: Exception, commands: Sequence[Command]) -> None:
        """A turn can never be stored. A mistake of the writer is a finding."""
        if not isinstance(problem, DataRefused):
            raise problem

    def reset(self, problem: Exception, commands: Sequence[Command]) -> None:
        """The state is dropped. A mistake of the writer is a finding."""
        if not isinstance(problem, FarmError):
            raise problem
        self._controller.close_all()


class Controller(Process):
    """One controller process. It leads, stands by, or is dead."""

    def __init__(self, world: World, name: str, database: Database, limits: Limits, checks: Checkers) -> None:
        super().__init__(world)
        self.name = name
        self.mono_offset_s = world.chance(name).uniform(10.0, 100_000.0)
        self.wall_offset_s = 1_700_000_000.0
        self.limits = limits
        self._database = database
        self._checks = checks
        self.loaded_at = Instant(0.0, 0.0)
        self._alarm = 0
        self._work: dict[type[turns.Request], Callable[[Any], None]] = {
            turns.Rest: self._rest,
            turns.TakeLead: self._take_lead,
            turns.Load: self._load,
            turns.FindKeys: self._find_keys,
            turns.ReadInputs: self._read_inputs,
            turns.Commit: self._commit,
            turns.Pause: lambda request: self._later(request.seconds),
        }
        self._reset()

    @property
    def now(self) -> Instant:
        """The moment on this controller's clocks. Its wall clock may jump; its monotonic one never."""
        return Instant(self.world.now + self.mono_offset_s, self.world.now + self.wall_offset_s)

    @property
    def state(self) -> FarmState | None:
        """The live state; None while it does not lead."""
        return self.turns.state

    # -------------------------------------------------------------- life

    def boot(self) -> None:
        """Start the process."""
        self.begin()
        self._reset()
        self._go()

    def kill(self) -> None:
        """SIGKILL: a commit on its way may still be applied; the kernel closes every stream."""
        self.end()
        for session in list(self.sessions.values()):
            session.stream.close("up")
        self._reset()
        self.world.at(0.01, self._database.unlock, self)

    def _reset(self) -> None:
        """A process that was just started has nothing in memory."""
        self._journal = MemoryJournal(self._database.tables)
        self.turns = turns.Turns(
            _Outside(self, self._checks),
            self.limits,
            EngineMetrics(),
            mono=lambda: self.now.mono,
            wall=lambda: self.now.wall,
            seed=self.world.seed,
        )
        self._writer = self.turns.life()
        self._is_resting = self._is_turn_due = False
        self.sessions: dict[int, Session] = {}
        self._next_session = 1

    # -------------------------------------------------------------- commands

    def ask(self, command: Command, answered: Answered) -> None:
        """A command that wants an answer."""
        try:
            self.turns.ask(command, answered)
        except FarmError as problem:
            answered(problem)
        self._wake()

    def tell(self, command: Command) -> None:
        """A fact."""
        self.turns.tell(command)
        self._wake()

    # -------------------------------------------------------------- what the writer asks for

    def _go(self, result: Any = None, problem: FarmError | None = None) -> None:
        """The writer goes on with a result, or with the problem that came instead, up to its next request."""
        request = self._writer.send(result) if problem is None else self._writer.throw(problem)
        self._work[type(request)](request)

    def _go_with(self, read: Callable[[], Any]) -> None:
        """The writer goes on with what is read from the database, if that is not away."""
        try:
            self._database.check()
            result = read()
        except FarmError as problem:
            self._go(problem=problem)
        else:
            self._go(result)

    def _later(self, delay_s: float, result: Any = None) -> None:
        self.after(delay_s, self._go, result)

    def _rest(self, request: turns.Rest) -> None:
        self._is_resting = True
        self._alarm += 1
        due_s = request.until - self.now.mono
        if self.turns.waiting or due_s <= 0.0:
            self._wake()
        else:
            self.after(due_s, self._tick, self._alarm)

    def _tick(self, number: int) -> None:
        if number == self._alarm:
            self._wake()

    def _wake(self) -> None:
        if self._is_resting and not self._is_turn_due:
            self._is_turn_due = True
            self._alarm += 1
            self.after(TURN_S, self._turn)

    def _turn(self) -> None:
        self._is_resting = self._is_turn_due = False
        self._checks.before_turn(self)
        self._go()

    def _commit(self, request: turns.Commit) -> None:
        self._checks.decided(self, self.turns.transition)
        life = self.life

        def answered(problem: FarmError | None) -> None:
            if life == self.life:
                self.after(0.0, self._committed, problem)

        self._database.commit(self._journal, request.changes, request.epoch, answered)

    def _committed(self, problem: FarmError | None) -> None:
        if problem is not None:
            self._checks.commit_failed(problem)
        self._go(problem=problem)

    def _find_keys(self, request: turns.FindKeys) -> None:
        self._go_with(lambda: self._journal.find_keys(request.keys))

    def _read_inputs(self, request: turns.ReadInputs) -> None:
        self._go_with(lambda: self._journal.read_inputs(request.tasks))

    # -------------------------------------------------------------- leading

    def _take_lead(self, request: turns.TakeLead) -> None:
        try:
            if not self._database.try_lock(self):
                self.after(LEAD_POLL_S, self._take_lead, request)
                return
            epoch = self._journal.take_lead()
        except FarmError as problem:
            self._go(problem=problem)
            return
        self._later(self._database.read_s(), epoch)

    def _load(self, request: turns.Load) -> None:
        try:
            self._database.check()
            state = self._journal.load(request.limits, request.now)
        except FarmError as problem:
            self._checks.commit_failed(problem)
            self._database.unlock(self)
            self._go(problem=problem)
        else:
            self._go(state)

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

    def close_all(self) -> None:
        """End every stream."""
        for session in list(self.sessions.values()):
            self._close(session)

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
        else:
            raise NotFound(f"no such message: {said}")
