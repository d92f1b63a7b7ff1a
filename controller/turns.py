"""The order of a turn, without I/O: what the farm's single writer asks of the world next.

`Turns` owns the live state, the commands that wait, and the turn in progress. Its steps are generators. What takes time
is a request, which a step yields: the driver carries it out and sends the result back, or throws in the error that it
met. What takes no time goes straight to the `World`. There is one order and there are four drivers: the engine on
asyncio, the simulated controllers, and the two farms of the unit tests.

    Rest ──▶ FindKeys ──▶ decide ──▶ Commit ──▶ send ──▶ answer ──▶ tell ──▶ ReadInputs ──▶ send
     ▲                                 │ fails                                                │
     ├─────────────────────────────────┼──────────────────────────────────────────────────────┘
     │                                 ▼
     lead ◀── Load ◀── TakeLead ◀── Pause ◀── answer (Unavailable) ◀── reset

Nothing is sent, answered or shown before its commit is durable. If a commit fails, or another controller leads, nothing
of that turn happens: the state is dropped and read again under a new epoch.

If the turn itself is at fault (a value that the database cannot hold, a mistake of ours) it would fail again. Then the
state is read again, streams stay open, and each command gets a turn of its own. The one at fault is answered with the
error; a fact of a node that can never be stored is set aside with an event, and acknowledged.

It must never import a driver, wait, or decide anything that the core decides.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, Protocol

from agentfarm.backoff import Backoff, longest_s
from agentfarm.errors import Conflict, FarmError, Unavailable
from controller.core.commands import Command, SubmitTasks, Tick
from controller.core.decide import decide
from controller.core.model import FarmState, Instant, Limits, TaskId
from controller.core.restore import keep_live
from controller.core.transition import Assign, Changes, CloseSession, Effect, Transition
from controller.faults import at_fault, in_doubt, not_ready, without
from controller.metrics import EngineMetrics

TURN_COMMANDS_MAX: Final = 2_000
"""Commands in one turn. More wait for the next."""
QUEUE_COMMANDS_MAX: Final = 50_000
"""Waiting commands beyond which callers are refused."""
RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S = 0.1, 2.0
FAULTS_MAX: Final = 100
"""Commands of one turn that may be at fault. With more the state is dropped: the fault may be elsewhere."""
LEAD_CHECK_S: Final = 1.0
"""The longest time in which beats are acknowledged without a commit, which proves that this controller still leads."""

Caller = Any
"""What a driver answers a caller by: a future, a function. None: no caller waits for the answer."""
Batch = list[tuple[Command, Caller]]

# ------------------------------------------------------------------ requests


@dataclasses.dataclass(slots=True)
class TakeLead:
    """Wait until this controller leads. Result: the new epoch."""


@dataclasses.dataclass(slots=True)
class Load:
    """Read everything live. Result: the state."""

    limits: Limits
    now: Instant


@dataclasses.dataclass(slots=True)
class Rest:
    """Wait until a command waits, the writer shall stop, or the monotonic clock reaches `until`."""

    until: float


@dataclasses.dataclass(slots=True)
class FindKeys:
    """Look up idempotency keys. Result: the tasks of those that are stored."""

    keys: list[str]


@dataclasses.dataclass(slots=True)
class Commit:
    """Make a turn durable, if this epoch still leads. Without changes: only check that it leads."""

    changes: Changes
    epoch: int


@dataclasses.dataclass(slots=True)
class ReadInputs:
    """Read inputs that memory has no room for. Result: the input of each task."""

    tasks: list[TaskId]


@dataclasses.dataclass(slots=True)
class Pause:
    """Wait this long before the next try. `problem` is why the lead was not taken, if that is the reason."""

    seconds: float
    problem: FarmError | None = None


Request = TakeLead | Load | Rest | FindKeys | Commit | ReadInputs | Pause
Steps = Generator[Request, Any, None]

# ------------------------------------------------------------------ what takes no time


class World(Protocol):
    """What a driver does at once. An error that a call raises ends the turn."""

    def send(self, effects: Sequence[Effect]) -> None:
        """Send these effects to their nodes."""

    def answer(self, answers: Sequence[tuple[Caller, object]]) -> None:
        """Answer these callers. A FarmError is an answer too."""

    def tell(self, transition: Transition, state: FarmState) -> None:
        """Tell the watchers of tasks and the followers of events about a durable turn."""

    def lead(self, state: FarmState) -> None:
        """The state is loaded: commands are taken from now on."""

    def refused(self, problem: Exception, commands: Sequence[Command]) -> None:
        """A turn of these commands can never be stored. What is at fault in it is looked for; streams stay open."""

    def reset(self, problem: Exception, commands: Sequence[Command]) -> None:
        """The state is dropped because of `problem`: close every node's stream, and end every watch."""


# ------------------------------------------------------------------ the writer


class Turns:
    """The single writer. `state` is None while it does not lead; `batch` and `transition` are of the turn in progress.

    mono, wall: the two clocks, in seconds.
    """

    def __init__(
        self,
        world: World,
        limits: Limits,
        metrics: EngineMetrics,
        *,
        mono: Callable[[], float],
        wall: Callable[[], float],
        seed: int = 0,
    ) -> None:
        self._world = world
        self.limits = limits
        self.metrics = metrics
        self._mono, self._wall = mono, wall
        self._seed = seed
        self.state: FarmState | None = None
        self.waiting: Batch = []
        self.batch: Batch = []
        self.transition = Transition()
        self.is_stopping = False
        self._next_due = 0.0
        self._failures_in_row = 0
        self._proven_at = 0.0  # mono, of the last commit: it proved that we lead

    @property
    def now(self) -> Instant:
        """The moment on both clocks."""
        return Instant(self._mono(), self._wall())

    def ask(self, command: Command, caller: Caller) -> None:
        """Queue a command of a caller who waits for the answer. Raises Unavailable if no turn will take it."""
        if self.state is None or self.is_stopping:
            raise not_ready()
        if len(self.waiting) >= QUEUE_COMMANDS_MAX:
            raise Unavailable("Too many commands wait for the engine.", remedy="Slow down, then try again.")
        self.waiting.append((command, caller))

    def tell(self, command: Command) -> None:
        """Queue a fact that needs no answer. It is dropped without a lead: the streams of nodes are closed then."""
        if self.state is not None and not self.is_stopping:
            self.waiting.append((command, None))

    def life(self) -> Steps:
        """Everything from the first lead on, until `is_stopping` is set."""
        yield from self.lead()
        while not self.is_stopping:
            yield Rest(self._next_due)
            batch = self.waiting[:TURN_COMMANDS_MAX]
            del self.waiting[:TURN_COMMANDS_MAX]
            try:
                yield from self.turn(batch or [(Tick(), None)])
            except Exception as problem:
                yield from self._recover(problem)

    def turn(self, batch: Batch) -> Steps:
        """One turn. After an error that it raises, only `lead` may follow."""
        state = self.state
        assert state is not None
        self.batch = batch
        commands = [command for command, _ in batch]
        keys = _idempotency_keys(commands)
        if keys:
            commands = _with_known_keys(commands, (yield FindKeys(keys)))
        metrics, now = self.metrics, Instant(self._mono(), self._wall())
        transition = self.transition = decide(state, commands, now)
        decided = self._mono()
        self._next_due = transition.next_due or decided
        metrics.turns += 1
        metrics.commands += len(commands)
        metrics.decide_s += decided - now.mono
        if not transition.changes.is_empty() or decided - self._proven_at > LEAD_CHECK_S:
            self._proven_at = decided
            yield from self._commit(transition)
            metrics.count_commit(self._mono() - decided)
            self._failures_in_row = 0
        for effect in self._publish(transition):
            self._world.send([(yield from _with_inputs(effect))])

    def _commit(self, transition: Transition) -> Steps:
        assert self.state is not None
        yield Commit(transition.changes, self.state.epoch)

    def _publish(self, transition: Transition) -> Sequence[Effect]:
        """The turn is durable. Nodes hear of it first, because their work takes longest.

        Returns the effects that are left: from the first one on whose inputs are not in memory.
        """
        for task in transition.forget_inputs:
            task.input = None
        world, effects, answers = self._world, transition.effects, transition.answers
        whole = next((index for index, effect in enumerate(effects) if _lacks_inputs(effect)), len(effects))
        if whole:
            world.send(effects[:whole])
        batch, self.batch = self.batch, []
        world.answer([(caller, answers[index]) for index, (_, caller) in enumerate(batch) if caller is not None])
        self.metrics.count_durable(transition)
        assert self.state is not None
        world.tell(transition, self.state)
        return effects[whole:]

    # -------------------------------------------------------------- the lead

    def lead(self) -> Steps:
        """Become the leader and read the state. Tries until it succeeds: a database that is away comes back."""
        backoff = Backoff(RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S, random.Random(self._seed).random)  # noqa: S311 - jitter, not a secret
        while True:
            try:
                epoch = yield TakeLead()
                state = yield Load(self.limits, self.now)
                break
            except FarmError as problem:
                failure = problem
            yield Pause(backoff.next_s(), failure)
        state.seed = self._seed ^ epoch
        self.state = state
        self._next_due = 0.0
        self._world.lead(state)

    def _recover(self, problem: Exception) -> Steps:
        """Do without the command at fault, or else begin again."""
        if self.batch and not self.is_stopping and not isinstance(problem, Unavailable | Conflict):
            try:
                yield from self._singly(problem)
            except Exception as worse:
                problem = worse
            else:
                return
        yield from self._begin_again(problem)

    def _singly(self, problem: Exception) -> Steps:
        """Read the state again, and give each command of the turn one of its own. Raises what no command is at fault
        for; then `batch` is what has had no turn."""
        left, self.batch = self.batch, []
        faults = 0
        try:
            yield from self._read_again(problem, left)
            yield from self.turn([(Tick(), None)])
            while left:
                entry = left[0]
                try:
                    yield from self.turn([entry])
                except Exception as fault:
                    faults += 1
                    if not self.batch or faults > FAULTS_MAX or isinstance(fault, Unavailable | Conflict):
                        raise
                    yield from self._read_again(fault, [entry])
                    command, caller = entry
                    if caller is not None:
                        self._world.answer([(caller, at_fault(fault))])
                    left[:1] = [(part, None) for part in without(command, fault)]
                else:
                    del left[0]
        except Exception:
            self.batch = left
            raise

    def _read_again(self, problem: Exception, batch: Batch) -> Steps:
        """The state as it is stored, with what memory alone knows. This controller leads on, in the same epoch."""
        self.metrics.commit_failures += 1
        self._world.refused(problem, [command for command, _ in batch])
        before = self.state
        assert before is not None
        self._world.send([effect for effect in self.transition.effects if isinstance(effect, CloseSession)])
        state = yield Load(self.limits, self.now)
        keep_live(state, before)
        self.state, self._next_due, self._proven_at = state, 0.0, 0.0  # so the next turn shows that others succeed

    def _begin_again(self, problem: Exception) -> Steps:
        """Drop the state and read it again. Nodes lose their streams, come back and say what they hold.

        The first try follows at once. Later ones wait longer and longer, because a full disk refuses every commit.
        """
        self._failures_in_row += 1
        self.metrics.commit_failures += 1
        self.metrics.recoveries += 1
        self.state = None
        self._world.reset(problem, [command for command, _ in self.batch])
        self._world.answer(self.give_up(problem))
        if not self.is_stopping:  # a lead could take long to get, and nothing needs it
            yield Pause(recover_wait_s(self._failures_in_row))
            yield from self.lead()

    def give_up(self, problem: Exception) -> Sequence[tuple[Caller, object]]:
        """What all callers hear if their commands end here: those of the turn in progress, and those who wait."""
        batch, self.batch = self.batch, []
        waiting, self.waiting = self.waiting, []
        undecided = [(caller, in_doubt(problem)) for _, caller in batch if caller is not None]
        return undecided + [(caller, not_ready()) for _, caller in waiting if caller is not None]


def recover_wait_s(failures_in_row: int) -> float:
    """How long to wait before the state is read again."""
    return longest_s(failures_in_row - 1, RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S)


# ------------------------------------------------------------------ keys and inputs


def _idempotency_keys(commands: Iterable[Command]) -> list[str]:
    """The keys of this turn. They are looked up inside the turn, so two equal submits can never both be new."""
    return [
        task.options.idempotency_key
        for command in commands
        if isinstance(command, SubmitTasks)
        for task in command.tasks
        if task.options is not None and task.options.idempotency_key is not None
    ]


def _with_known_keys(commands: Iterable[Command], keys: dict[str, TaskId]) -> list[Command]:
    return [dataclasses.replace(c, known_keys=keys) if isinstance(c, SubmitTasks) else c for c in commands]


def _lacks_inputs(effect: Effect) -> bool:
    """Inputs beyond what memory has room for wait in PostgreSQL."""
    return isinstance(effect, Assign) and any(lease.input is None for lease in effect.leases)


def _with_inputs(effect: Effect) -> Generator[Request, Any, Effect]:
    """The effect with the inputs that memory has no room for."""
    if not isinstance(effect, Assign) or not _lacks_inputs(effect):
        return effect
    missing = [lease.task for lease in effect.leases if lease.input is None]
    inputs = yield ReadInputs(missing)
    leases = [
        lease if lease.input is not None else dataclasses.replace(lease, input=inputs[lease.task])
        for lease in effect.leases
    ]
    return dataclasses.replace(effect, leases=leases)
