"""The engine: the asyncio driver of the farm's single writer.

It carries out what `Turns` asks for: it calls the journal, sends effects to nodes, answers callers, and wakes watchers
and followers. While a commit is in flight the next batch gathers, so load makes batches larger and the cost of one task
smaller.

It must never decide anything, change the order of a turn, or touch SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import structlog

from agentfarm.errors import FarmError, Unavailable
from agentfarm.service import Service
from controller import turns
from controller.core.commands import Command, Tick
from controller.core.model import FarmState, Instant, Limits, NodeName, TaskId, Token
from controller.core.transition import Changes, Effect, Event, Transition
from controller.metrics import EngineMetrics
from controller.turns import Request, Turns
from controller.watchers import EventBus, TaskWatch, Watchers

log = structlog.get_logger("controller.engine")

LAST_TURN_S: Final = 5.0
"""The time for the turn in progress when the engine stops. Its callers cannot know more after that."""


class JournalPort(Protocol):
    """What the engine needs of the journal. Every call blocks, and runs on a thread of the engine. Only `commit_here`
    does not: it commits a small turn on the event loop, and returns None where the turn needs `commit`."""

    def take_lead(self) -> int: ...
    def load(self, limits: Limits, now: Instant) -> FarmState: ...
    def commit(self, changes: Changes, epoch: int) -> None: ...
    def commit_here(self, changes: Changes, epoch: int) -> Awaitable[None] | None: ...
    def find_keys(self, keys: Sequence[str]) -> dict[str, TaskId]: ...
    def read_inputs(self, ids: Sequence[TaskId]) -> dict[TaskId, bytes]: ...


class NodePort(Protocol):
    """The streams of the nodes, as the engine uses them. No call blocks."""

    def deliver(self, effect: Effect) -> None:
        """Send one effect of a committed turn."""

    def close_all(self, reason: str) -> None:
        """End every stream. Nodes come back and say what they hold."""


class Engine(Service):
    """One leader's engine. `state` may be read on the event loop between awaits."""

    def __init__(
        self,
        journal: JournalPort,
        nodes: NodePort,
        limits: Limits,
        *,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        super().__init__("engine")
        self.watchers = Watchers()
        self.events = EventBus()
        self.metrics = EngineMetrics()
        self.leading = asyncio.Event()
        self._journal = journal
        self._mono = mono
        self._outside = _Outside(nodes, self.watchers, self.events, self.leading)
        self._turns = Turns(self._outside, limits, self.metrics, mono=mono, wall=wall, seed=seed)
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._task: asyncio.Task[None] | None = None
        self._work: dict[type[Request], Callable[[Any], Awaitable[Any]]] = {
            turns.Rest: self._rest,
            turns.Commit: self._commit,
            turns.FindKeys: lambda request: self._on_thread(journal.find_keys, request.keys),
            turns.ReadInputs: lambda request: self._on_thread(journal.read_inputs, request.tasks),
            turns.TakeLead: lambda request: self._on_thread(journal.take_lead),
            turns.Load: lambda request: self._on_thread(journal.load, request.limits, request.now),
            turns.Pause: self._pause,
        }

    @property
    def state(self) -> FarmState:
        """The live state. Raises Unavailable while another controller leads, or while it is read again."""
        state = self._turns.state
        if state is None:
            raise Unavailable(
                "This controller does not lead now: it stands by, or is reading its state again.",
                remedy="Try again in a few seconds.",
            )
        return state

    async def _begin(self) -> None:
        """Returns at once. `leading` is set when the state is loaded and commands are taken."""
        self._task = self.run_task(self._run())

    async def _finish(self) -> None:
        """Finish the turn in progress, or give up on it. Commands that still wait are answered with Unavailable."""
        self._turns.is_stopping = True
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
        self._outside.answer(self._turns.give_up(FarmError("The controller stops.")))
        self.watchers.end_all()
        self.events.end()
        self._thread.shutdown(wait=False)

    # -------------------------------------------------------------- commands

    async def ask(self, command: Command, *, deadline_s: float = 10.0) -> Any:
        """The answer to a command, after it is durable. Raises the FarmError it was answered with, or Unavailable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._turns.ask(command, future)
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
        self._turns.tell(command)
        self._wake.set()

    async def flushed(self) -> None:
        """Return when everything that the live state holds now is durable. Raises Unavailable."""
        await self.ask(Tick())

    def watch_task(self, task: TaskId, after: int = 0) -> TaskWatch | None:
        """Watch a live task; None if it is not live (look in the journal)."""
        return self.watchers.watch(task, after) if task in self.state.tasks else None

    def output(self, node: NodeName, task_id: TaskId, token: Token, data: bytes) -> None:
        """A piece of output from a node; dropped unless its token holds the task's lease there."""
        state = self._turns.state
        task = state.tasks.get(task_id) if state is not None else None
        if task is not None and task.token == token and task.node == node:
            self.watchers.piece(task_id, data)

    # -------------------------------------------------------------- what the writer asks for

    async def _run(self) -> None:
        """Carry out one request after the other."""
        life = self._turns.life()
        request = next(life)
        while True:
            result, problem = None, None
            try:
                result = await self._work[type(request)](request)
            except Exception as error:
                problem = error  # the writer knows what follows
            try:
                request = life.send(result) if problem is None else life.throw(problem)
            except StopIteration:
                return

    async def _rest(self, request: turns.Rest) -> None:
        if self._turns.waiting:
            return
        self._wake.clear()
        wait_s = request.until - self._mono()
        if wait_s > 0:
            due = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
            await self._wake.wait()
            due.cancel()

    def _commit(self, request: turns.Commit) -> Awaitable[None]:
        """Without the thread where the turn is small: there and back costs a lone task more than its statements."""
        small = self._journal.commit_here(request.changes, request.epoch)
        return self._on_thread(self._journal.commit, request.changes, request.epoch) if small is None else small

    async def _pause(self, request: turns.Pause) -> None:
        if request.problem is not None:
            log.warning("engine.waiting", problem=str(request.problem), retry_in_s=round(request.seconds, 3))
        await asyncio.sleep(request.seconds)

    def _on_thread(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


class _Outside:
    """Everybody who hears of a turn: nodes, callers, watchers, followers and the log."""

    def __init__(self, nodes: NodePort, watchers: Watchers, events: EventBus, leading: asyncio.Event) -> None:
        self._nodes, self._watchers, self._events, self._leading = nodes, watchers, events, leading

    def send(self, effects: Sequence[Effect]) -> None:
        """Send effects of a committed turn to their nodes."""
        deliver = self._nodes.deliver
        for effect in effects:
            deliver(effect)

    def answer(self, answers: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
        """Answer callers who still wait."""
        for future, answer in answers:
            if future.done():
                continue
            if isinstance(answer, FarmError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def tell(self, transition: Transition, state: FarmState) -> None:
        """Tell watchers, followers and the log about a committed turn."""
        self._watchers.hear(transition, state.tasks)
        events = transition.changes.events
        if events:
            _log(events)
            self._events.publish(events)

    def lead(self, state: FarmState) -> None:
        """This controller leads."""
        self._leading.set()
        log.info("engine.leading", epoch=state.epoch, tasks=len(state.tasks), nodes=len(state.nodes))

    def refused(self, problem: Exception, commands: Sequence[Command]) -> None:
        """A turn can never be stored. It is looked for what is at fault."""
        _log_failure("engine.turn_refused", problem, commands)

    def reset(self, problem: Exception, commands: Sequence[Command]) -> None:
        """The state is read again: no part may rely on what it was."""
        if isinstance(problem, FarmError):
            log.warning("engine.commit_failed", problem=str(problem))
        else:
            _log_failure("engine.turn_failed", problem, commands)
        self._leading.clear()
        self._nodes.close_all("the controller reads its state again")
        self._watchers.end_all()


def _log_failure(event: str, problem: Exception, commands: Sequence[Command]) -> None:
    names = [type(command).__name__ for command in commands][:20]
    if isinstance(problem, FarmError):
        log.error(event, problem=str(problem), commands=names)
    else:
        log.error(event, exc_info=problem, commands=names)


def _log(events: Sequence[Event]) -> None:
    for event in events:
        write = {"info": log.info, "warning": log.warning, "error": log.error}[event.severity]
        refs = {"node": event.node, "deployment": event.deployment, "replica": event.replica, "task": event.task}
        shown = {name: value for name, value in refs.items() if value is not None}
        write(event.kind, message=event.message, **shown)
