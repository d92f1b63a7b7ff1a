"""The event loop's side of a replica: takes attempts, runs as many at once as the spec allows, reports how they ended.

Each attempt is a task of its own with its own context. A cancelled attempt is reported only when its coroutine has
ended and no thread works for it any more; one that never ends is the daemon's to kill.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from nodeagent.runner.protocol.frames import Outcome, Output, Result, Run
from nodeagent.runner.protocol.launch import Launch
from nodeagent.runner.protocol.slots import Slots
from nodeagent.runner.replica.calls import AgentCalls
from nodeagent.runner.replica.control import Control
from nodeagent.runner.replica.lease import ReplicaLease
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.queue import Queue
from nodeagent.runner.replica.reporter import Reporter
from nodeagent.runner.replica.threads import CURRENT_TOKEN, AttemptThreads

_to_json: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_from_json: Final = json.JSONDecoder().decode

TURN_STARTS_MAX: Final = 64
"""Attempts started in one turn of the loop; more would keep it from answering."""
OUTPUTS_PER_ATTEMPT_MAX: Final = 100_000


class Agent(Protocol):
    """What we need of `agentfarm.sdk.LoadedAgent`."""

    async def run(self, call: Any) -> object: ...


class Runtime:
    """The orders of the control thread, obeyed on the loop."""

    def __init__(
        self, agent: Agent, launch: Launch, control: Control, ledger: Ledger, lease: ReplicaLease, slots: Slots
    ) -> None:
        from agentfarm.sdk import Reject, make_call  # noqa: PLC0415 - loaded with the agent, in the zygote
        from agentfarm.sdk.tracebacks import agent_traceback  # noqa: PLC0415 - as above

        self._make_call = make_call
        self._reject = Reject
        self._traceback = agent_traceback
        self._bundle = Path(launch.bundle)
        self._agent = agent
        self._payload_max = launch.payload_bytes_max
        self._control = control
        self._ledger = ledger
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._queue = Queue(ledger, lease, launch.concurrency, time.monotonic, self._end)
        self._waiting = self._queue.waiting
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()
        self._reporter = Reporter(control, self._loop, self._tasks)
        self._idle_waits: dict[int, asyncio.Event] = {}
        self._stopped = asyncio.Event()
        self._threads = AttemptThreads(max(8, min(64, 2 * launch.concurrency)), self._thread_idle)
        self._loop.set_default_executor(self._threads)
        self._calls = AgentCalls(control, self._loop)

    async def serve(self) -> None:
        """Until `stop`; then everything in hand is interrupted and reported."""
        await self._stopped.wait()
        self._queue.stop()
        for token, task in self._tasks.items():
            self._cancelled.add(token)
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._reporter.flush()

    # -------------------------------------------------------------- orders, on the control thread

    def run(self, runs: list[Run]) -> None:
        self._loop.call_soon_threadsafe(self._take, runs)

    def cancel(self, tokens: Sequence[int]) -> None:
        self._loop.call_soon_threadsafe(self._cancel, tokens)

    def deliver(self) -> None:
        """Send what has ended, in case the loop does not turn."""
        self._reporter.deliver()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def probe(self) -> None:
        self._loop.call_soon_threadsafe(self._control.loop_turned)

    def answer(self, body: bytes) -> None:
        self._loop.call_soon_threadsafe(self._calls.answered, body)

    def connected(self) -> None:
        self._loop.call_soon_threadsafe(self._calls.repeat)

    # -------------------------------------------------------------- attempts, on the loop

    def _take(self, runs: list[Run]) -> None:
        self._queue.take(runs)
        self._start_some()

    def _start_some(self) -> None:
        queue, tasks = self._queue, self._tasks
        for _ in range(TURN_STARTS_MAX):
            run = queue.begin(len(tasks))
            if run is None:
                return
            self._slots.take(run.token)
            self._reporter.started(run.token)
            tasks[run.token] = self._loop.create_task(self._attempt(run))
        self._loop.call_soon(self._start_some)

    def _cancel(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            task = self._tasks.get(token)
            if task is not None:
                self._cancelled.add(token)
                task.cancel()
        self._queue.cancel(tokens)

    async def _attempt(self, run: Run) -> None:
        CURRENT_TOKEN.set(run.token)
        began = time.perf_counter_ns()
        result: tuple[int, bytes, str, str, str]
        try:
            value, emit = _from_json(run.input.decode()), _Emitter(self._reporter, run).emit
            call = self._make_call(run.task_id, run.attempt, run.thread_id, value, emit, self._calls.channel(run))
            result = (Outcome.SUCCEEDED, self._encode(await self._agent.run(call)), "", "", "")
        except asyncio.CancelledError as error:
            is_ours = run.token in self._cancelled
            ended = Outcome.INTERRUPTED if self._stopped.is_set() else Outcome.CANCELLED
            result = (ended, b"", "", "", "") if is_ours else self._failure(error)
        except BaseException as error:
            result = self._failure(error)
        while self._threads.is_working(run.token) and result[0] != Outcome.SUCCEEDED:
            await self._threads_end(run.token)
        self._cancelled.discard(run.token)
        outcome, output, kind, message, trace = result
        duration_us = (time.perf_counter_ns() - began) // 1000
        self._tasks.pop(run.token, None)
        self._end(Result(run.task_id, run.token, outcome, duration_us, output, kind, message, trace))
        if self._waiting:
            self._start_some()

    def _failure(self, error: BaseException) -> tuple[int, bytes, str, str, str]:
        """Type, message and traceback of what the agent raised: the agent's own lines."""
        try:
            message = str(error)
        except Exception:
            message = "(this exception cannot be printed)"
        name = "Reject" if isinstance(error, self._reject) else type(error).__name__
        return Outcome.FAILED, b"", name, message, self._traceback(error, self._bundle)

    def _encode(self, value: object) -> bytes:
        data = _to_json(value).encode()
        if len(data) > self._payload_max:
            raise OutputTooLarge(
                f"The output has {len(data)} bytes; a task may answer with {self._payload_max}. "
                "Store what is large and answer with its place."
            )
        return data

    async def _threads_end(self, token: int) -> None:
        event = self._idle_waits.setdefault(token, asyncio.Event())
        if self._threads.is_working(token):
            try:
                await event.wait()
            except asyncio.CancelledError:
                return  # asked again to stop; the thread still has to end first
        self._idle_waits.pop(token, None)

    def _thread_idle(self, token: int) -> None:
        if token in self._idle_waits:
            self._loop.call_soon_threadsafe(self._wake_idle, token)

    def _wake_idle(self, token: int) -> None:
        event = self._idle_waits.get(token)
        if event is not None:
            event.set()

    def _end(self, result: Result) -> None:
        self._slots.release(result.token)
        packed = self._ledger.end(result)
        if packed is not None:
            self._reporter.ended(packed, more_to_come=bool(self._waiting))


class OutputTooLarge(ValueError):
    """The agent's answer is larger than a payload may be."""


class _Emitter:
    """`Call.emit` of one attempt: numbers its pieces."""

    __slots__ = ("_reporter", "_run", "_seq")

    def __init__(self, reporter: Reporter, run: Run) -> None:
        self._reporter = reporter
        self._run = run
        self._seq = 0

    def emit(self, value: object) -> None:
        if self._seq >= OUTPUTS_PER_ATTEMPT_MAX:
            return
        self._seq += 1
        data = json.dumps(value, allow_nan=False, ensure_ascii=False, default=str).encode()
        self._reporter.piece(Output(self._run.task_id, self._run.token, self._seq, data))
