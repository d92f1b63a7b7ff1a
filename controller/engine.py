"""The engine: the farm's single writer.

It owns the order of things: take every waiting command, let the core decide, commit, and only then answer callers, send
effects and wake watchers. While a commit is in flight the next batch gathers, so load makes batches larger and the cost
of one task smaller. If a commit fails, nothing it would have caused happens: the state is read again from PostgreSQL
under a new epoch, node streams are closed, and callers of that turn hear Unavailable.

It must never decide anything itself, and never touch SQL.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import structlog

from agentfarm.backoff import Backoff, longest_s
from agentfarm.errors import FarmError, Unavailable
from agentfarm.service import Service
from controller.core.commands import Command, SubmitTasks, Tick
from controller.core.decide import decide
from controller.core.model import FarmState, Instant, Limits, TaskId, Token
from controller.core.tasks.life import GIVEN_BACK
from controller.core.transition import Assign, Changes, Effect, Event, Transition
from controller.followers import EventBus
from controller.watchers import StateChange, TaskWatch, Watchers

log = structlog.get_logger("controller.engine")
T = TypeVar("T")

TURN_COMMANDS_MAX: Final = 2_000  # commands in one turn; more wait for the next
QUEUE_COMMANDS_MAX: Final = 50_000  # waiting commands beyond which callers are refused
RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S = 0.1, 2.0
COMMIT_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of the histogram
LAST_TURN_S: Final = 5.0  # what the turn in progress gets when the engine stops; its callers cannot know more than then
LEAD_CHECK_S: Final = 1.0  # the longest beats are acknowledged without asking PostgreSQL whether we still lead


class JournalPort(Protocol):
    """What the engine needs of the journal. Every call blocks; the engine calls them on one thread of its own, but
    `commit_here`: a small turn's commit on the event loop, or None where it has to be `commit`."""

    def take_lead(self) -> int: ...
    def load(self, limits: Limits, now: Instant) -> FarmState: ...
    def commit(self, changes: Changes, epoch: int) -> None: ...
    def commit_here(self, changes: Changes, epoch: int) -> Awaitable[None] | None: ...
    def find_keys(self, keys: Sequence[str]) -> dict[str, TaskId]: ...
    def read_inputs(self, ids: Sequence[TaskId]) -> dict[TaskId, bytes]: ...


@dataclasses.dataclass(slots=True)
class EngineMetrics:
    """Plain counters, read by whoever exports them. Seconds and counts since the engine started."""

    turns: int = 0
    commits: int = 0
    commit_failures: int = 0
    commands: int = 0
    decide_s: float = 0.0
    commit_s: float = 0.0
    last_commit_s: float = 0.0
    commit_buckets: dict[float, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(COMMIT_BUCKETS_S, 0))
    tasks_submitted: int = 0
    tasks_finished: dict[str, int] = dataclasses.field(default_factory=dict)
    attempts_requeued: int = 0
    attempts_given_back: int = 0
    recoveries: int = 0

    def count_commit(self, took_s: float) -> None:
        """One commit, and how long it took; one slower than the last bucket is in their sum alone."""
        self.commits += 1
        self.commit_s += took_s
        self.last_commit_s = took_s
        bound = next((bound for bound in COMMIT_BUCKETS_S if took_s <= bound), None)
        if bound is not None:
            self.commit_buckets[bound] += 1


def recover_wait_s(failures_in_row: int) -> float:
    """How long to wait before the state is read again."""
    return longest_s(failures_in_row - 1, RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S)


class Engine(Service):
    """One leader's engine. `state` may be read on the event loop between awaits, and is None while not leading."""

    def __init__(
        self,
        journal: JournalPort,
        limits: Limits,
        *,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        super().__init__("engine")
        self._journal = journal
        self._limits = limits
        self._mono, self._wall = mono, wall
        self._seed = seed
        self._state: FarmState | None = None
        self._waiting: list[tuple[Command, asyncio.Future[Any] | None]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._next_due = 0.0
        self._failures_in_row = 0
        self._checked_at = 0.0  # perf_counter of the last transaction, which proves that we lead
        self.send: Callable[[Effect], None] = lambda effect: None  # set by the link
        self.on_reset: Callable[[], None] = lambda: None  # set by the link: close every node stream
        self.watchers = Watchers()
        self.events = EventBus()
        self.metrics = EngineMetrics()
        self.leading = asyncio.Event()

    @property
    def state(self) -> FarmState:
        """The live state. Raises Unavailable while another controller leads, or while it is read again."""
        if self._state is None:
            raise Unavailable(
                "This controller does not lead now: it stands by, or is reading its state again.",
                remedy="Try again in a few seconds.",
            )
        return self._state

    @property
    def now(self) -> Instant:
        """The moment on both clocks."""
        return Instant(self._mono(), self._wall())

    async def _begin(self) -> None:
        """Returns at once. `leading` is set when the state is loaded and commands are taken."""
        self._task = self.run_task(self._run())

    async def _finish(self) -> None:
        """Finish the turn in progress, or give up on it. What still waits hears Unavailable."""
        self._is_stopping = True
        self._wake.set()
        if self._task is not None:
            if not self.leading.is_set():
                self._task.cancel()
            _, late = await asyncio.wait([self._task], timeout=LAST_TURN_S)
            if late:
                log.warning("engine.turn_abandoned", after_s=LAST_TURN_S, why="PostgreSQL does not answer")
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._refuse_waiting()
        self.watchers.end_all()
        self.events.end()
        self._thread.shutdown(wait=False)

    # -------------------------------------------------------------- commands

    async def ask(self, command: Command, *, deadline_s: float = 10.0) -> Any:
        """The answer to a command, after it is durable. Raises the FarmError it was answered with, or Unavailable."""
        if self._state is None or self._is_stopping:
            raise self._unavailable()
        if len(self._waiting) >= QUEUE_COMMANDS_MAX:
            raise Unavailable("Too many commands wait for the engine.", remedy="Slow down, then try again.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        self._wake.set()
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            raise Unavailable(
                f"The controller did not answer within {deadline_s:g} s.",
                remedy="It may still have been done: look, or repeat with the same idempotency key.",
            ) from None

    def tell(self, command: Command) -> None:
        """A fact that needs no answer. Dropped while not leading: node streams are closed then anyway."""
        if self._state is not None and not self._is_stopping:
            self._waiting.append((command, None))
            self._wake.set()

    def watch_task(self, task: TaskId, after: int = 0) -> TaskWatch | None:
        """Watch a live task; None if it is not live (look in the journal)."""
        return self.watchers.watch(task, after) if task in self.state.tasks else None

    def output(self, task_id: TaskId, token: Token, data: bytes) -> None:
        """A piece of output from a node; dropped unless its token holds the task's lease."""
        task = self._state.tasks.get(task_id) if self._state is not None else None
        if task is not None and task.token == token:
            self.watchers.piece(task_id, data)

    # -------------------------------------------------------------- turns

    async def _run(self) -> None:
        await self._lead()
        while not self._is_stopping:
            batch = await self._gather()
            try:
                await self._turn(batch)
            except FarmError as problem:
                log.warning("engine.commit_failed", problem=str(problem))
                self._fail(batch, problem)
                await self._recover()
            except asyncio.CancelledError:
                self._fail(batch, FarmError("The controller stops."))
                raise
            except Exception:
                log.exception("engine.turn_failed", commands=[type(command).__name__ for command, _ in batch][:20])
                self._fail(batch, FarmError("The controller made a mistake and is reading its state again."))
                await self._recover()

    async def _gather(self) -> list[tuple[Command, asyncio.Future[Any] | None]]:
        """Wait for a command or the next moment to look; take what waits."""
        if not self._waiting:
            self._wake.clear()
            wait_s = self._next_due - self._mono()
            if wait_s > 0:
                due = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
                await self._wake.wait()
                due.cancel()
        batch = self._waiting[:TURN_COMMANDS_MAX]
        del self._waiting[:TURN_COMMANDS_MAX]
        return batch or [(Tick(), None)]

    async def _turn(self, batch: list[tuple[Command, asyncio.Future[Any] | None]]) -> None:
        assert self._state is not None
        commands = await self._with_known_keys([command for command, _ in batch])
        started = time.perf_counter()
        transition = decide(self._state, commands, self.now)
        decided = time.perf_counter()
        self._next_due = transition.next_due or self._mono()
        metrics = self.metrics
        metrics.turns += 1
        metrics.commands += len(batch)
        metrics.decide_s += decided - started
        if not transition.changes.is_empty() or decided - self._checked_at > LEAD_CHECK_S:
            self._checked_at = decided
            await self._commit(transition.changes, self._state.epoch)
            metrics.count_commit(time.perf_counter() - decided)
            self._failures_in_row = 0
        await self._publish(batch, transition)

    async def _commit(self, changes: Changes, epoch: int) -> None:
        """Without the thread where the turn is small: there and back costs a lone task more than its statements."""
        small = self._journal.commit_here(changes, epoch)
        await (self._on_thread(self._journal.commit, changes, epoch) if small is None else small)

    async def _publish(self, batch: list[tuple[Command, asyncio.Future[Any] | None]], transition: Transition) -> None:
        """The commit is durable: let the world know. Nodes first, because what they do takes longest."""
        for task in transition.forget_inputs:
            task.input = None
        effects = transition.effects
        whole = next((index for index, effect in enumerate(effects) if _lacks_inputs(effect)), len(effects))
        for effect in effects[:whole]:
            self.send(effect)
        for index, (_, future) in enumerate(batch):
            if future is not None and not future.done():
                answer = transition.answers[index]
                if isinstance(answer, FarmError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        self._wake_watchers(transition)
        for effect in effects[whole:]:
            self.send(await self._with_inputs(effect) if isinstance(effect, Assign) else effect)

    def _wake_watchers(self, transition: Transition) -> None:
        assert self._state is not None
        changes, metrics = transition.changes, self.metrics
        metrics.tasks_submitted += len(changes.inserted_tasks)
        metrics.attempts_requeued += len(changes.requeued_tasks)
        metrics.attempts_given_back += sum(item.error_type == GIVEN_BACK for item in changes.ended_attempts)
        for item in transition.finished:
            metrics.tasks_finished[item.state.value] = metrics.tasks_finished.get(item.state.value, 0) + 1
        for task in changes.requeued_tasks:
            self.watchers.changed(task.id, StateChange(task.state, task.attempt))
        for task_id in transition.started:
            if task_id in self._state.tasks:
                live = self._state.tasks[task_id]
                self.watchers.changed(task_id, StateChange(live.state, live.attempt))
        self.watchers.finished(transition.finished)
        if changes.events:
            self._log(changes.events)
            self.events.publish(changes.events)

    async def _with_known_keys(self, commands: list[Command]) -> list[Command]:
        """Look up the idempotency keys of this turn, in the turn: so two equal submits can never both be new."""
        keys = [
            task.options.idempotency_key
            for command in commands
            if isinstance(command, SubmitTasks)
            for task in command.tasks
            if task.options is not None and task.options.idempotency_key is not None
        ]
        if not keys:
            return commands
        known = await self._on_thread(self._journal.find_keys, keys)
        return [dataclasses.replace(c, known_keys=known) if isinstance(c, SubmitTasks) else c for c in commands]

    async def _with_inputs(self, effect: Assign) -> Assign:
        """Fetch the inputs that were too many to keep in memory."""
        missing = [lease.task for lease in effect.leases if lease.input is None]
        if not missing:
            return effect
        inputs = await self._on_thread(self._journal.read_inputs, missing)
        leases = [
            lease if lease.input is not None else dataclasses.replace(lease, input=inputs[lease.task])
            for lease in effect.leases
        ]
        return dataclasses.replace(effect, leases=leases)

    # -------------------------------------------------------------- leading and recovering

    async def _lead(self) -> None:
        """Wait to become the leader, then read the whole state. Tried for ever: a database away comes back."""
        backoff = Backoff(RECOVER_WAIT_FIRST_S, RECOVER_WAIT_MAX_S)
        while True:
            try:
                epoch = await self._on_thread(self._journal.take_lead)
                state = await self._on_thread(self._journal.load, self._limits, self.now)
            except FarmError as problem:
                wait_s = backoff.next_s()
                log.warning("engine.waiting", problem=str(problem), retry_in_s=round(wait_s, 3))
                await asyncio.sleep(wait_s)
                continue
            break
        state.seed = self._seed ^ epoch
        self._state = state
        self._next_due = 0.0
        self.leading.set()
        log.info("engine.leading", epoch=epoch, tasks=len(state.tasks), nodes=len(state.nodes))

    async def _recover(self) -> None:
        """Throw the state away and read it again. Streams are closed, so nodes come back and say what they hold.

        At once after one failure; more and more slowly where it fails again and again, as on a full disk.
        """
        self._failures_in_row += 1
        self.metrics.commit_failures += 1
        self.metrics.recoveries += 1
        self._state = None
        self.leading.clear()
        self.on_reset()
        self._refuse_waiting()
        self.watchers.end_all()
        if self._is_stopping:
            return  # to lead once more, only to stop, could take for ever
        await asyncio.sleep(recover_wait_s(self._failures_in_row))
        await self._lead()

    def _fail(self, batch: Sequence[tuple[Command, asyncio.Future[Any] | None]], problem: FarmError) -> None:
        for _, future in batch:
            if future is not None and not future.done():
                future.set_exception(
                    Unavailable(
                        f"Not known whether this was stored: {problem.problem}",
                        remedy="Look, or repeat with the same idempotency key.",
                    )
                )

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if future is not None and not future.done():
                future.set_exception(self._unavailable())

    def _unavailable(self) -> Unavailable:
        return Unavailable("The controller is not ready.", remedy="Try again in a few seconds.")

    async def _on_thread(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    def _log(self, events: Sequence[Event]) -> None:
        for event in events:
            say = {"info": log.info, "warning": log.warning, "error": log.error}[event.severity]
            refs = {"node": event.node, "deployment": event.deployment, "replica": event.replica, "task": event.task}
            shown = {name: value for name, value in refs.items() if value is not None}
            say(event.kind, message=event.message, **shown)


def _lacks_inputs(effect: Effect) -> bool:
    """Inputs beyond what memory has room for wait in PostgreSQL."""
    return isinstance(effect, Assign) and any(lease.input is None for lease in effect.leases)
