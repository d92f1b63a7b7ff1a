"""The run in progress, as its agent sees it: which run this is, how to send output, how to refuse a task.

A context variable holds it. So concurrent attempts in one replica, and the threads that they start through asyncio or
LangGraph, each see their own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from agentfarm.sdk.call import Call
from agentfarm.sdk.jsonable import to_json


class Reject(Exception):
    """This task can never succeed: it ends as `failed` and is not tried again. The text goes to the caller."""


@dataclass(frozen=True, slots=True)
class Context:
    """Which attempt this is, and where it runs. The names are empty outside a farm."""

    task_id: int
    attempt: int
    """From 1; more than 1 means that an earlier attempt did not end well."""
    thread_id: str
    agent: str
    node: str
    replica: str


@dataclass(frozen=True, slots=True)
class Run:
    """A call with the event loop it runs on: what `emit` and the checkpointer need from any thread."""

    call: Call
    loop: asyncio.AbstractEventLoop
    thread: int = field(default_factory=threading.get_ident)

    def emit(self, piece: object, *, lenient: bool = False) -> None:
        """Send a piece, from any thread of the agent. Pieces of one thread stay in order."""
        plain = to_json(piece, where="piece", lenient=lenient)
        if threading.get_ident() == self.thread:
            self.call.emit(plain)
        else:
            self.loop.call_soon_threadsafe(self.call.emit, plain)

    def context(self) -> Context:
        call = self.call
        names = (os.environ.get(f"AGENTFARM_{name}", "") for name in ("AGENT", "NODE", "REPLICA"))
        return Context(call.task_id, call.attempt, call.thread_id, *names)


_current: ContextVar[Run | None] = ContextVar("agentfarm_run", default=None)


@contextmanager
def run_of(call: Call) -> Iterator[Run]:
    """Make a call the current run. Entered on the event loop that runs it."""
    run = Run(call, asyncio.get_running_loop())
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def current_run() -> Run:
    """The run in progress. Raises RuntimeError outside one."""
    run = _current.get()
    if run is None:
        raise RuntimeError(
            "There is no run here: this works inside an agent that the farm, or agentfarm.sdk.testing, runs."
        )
    return run


def context() -> Context:
    """Which task, attempt, node and replica this is. Raises RuntimeError outside a run."""
    return current_run().context()


def emit(piece: object) -> None:
    """Show a JSON-able piece of output to those who watch the task now. It is not stored.

    Outside a run it does nothing, so an agent's parts can be tested alone. Raises TypeError when the piece has no JSON
    form.
    """
    run = _current.get()
    if run is None:
        to_json(piece, where="piece")
    else:
        run.emit(piece)
