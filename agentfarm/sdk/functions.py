"""Agents that are plain functions: async or not, returning or yielding.

A function that is not async runs in a thread of the event loop's default executor, so that it never blocks the
replica. Watchers see what a generator yields, piece by piece. Its answer is what it returns, or else its last piece.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

from agentfarm.sdk.call import Call
from agentfarm.sdk.jsonable import to_json
from agentfarm.sdk.run import Run, run_of
from agentfarm.sdk.signatures import schema_of, signature_of


class FunctionAgent:
    """A function as an agent."""

    kind: Literal["function"] = "function"

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function
        self._signature = signature_of(function)
        target = function if inspect.isroutine(function) else type(function).__call__
        target = inspect.unwrap(target)
        self._is_async = inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)

    def schemas(self) -> dict[str, Any]:
        """JSON schemas of input and output; an empty one is not known."""
        return {"input": self._signature.input_schema(), "output": schema_of(self._signature.returns)}

    async def run(self, call: Call) -> object:
        """Call the function; its answer as JSON values. Raises what the function raises, Reject for a wrong input."""
        with run_of(call) as run:
            args, kwargs = self._signature.bind(call.input, run.context)
            if self._is_async:
                answer = await _awaited(run, self._function(*args, **kwargs))
            else:
                answer = await asyncio.to_thread(self._in_thread, run, args, kwargs)
                if inspect.isawaitable(answer) or isinstance(answer, AsyncIterator):
                    answer = await _awaited(run, answer)
            return to_json(answer)

    def _in_thread(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        answer = self._function(*args, **kwargs)
        return _drained(run, answer) if isinstance(answer, Iterator) else answer


async def _awaited(run: Run, answer: Any) -> object:
    if not isinstance(answer, AsyncIterator):
        return await answer
    last: object = None
    try:
        async for piece in answer:
            run.emit(piece)
            last = piece
    finally:
        if callable(close := getattr(answer, "aclose", None)):
            await close()
    return last


def _drained(run: Run, pieces: Iterator[Any]) -> object:
    last: object = None
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return last if end.value is None else end.value
        run.emit(piece)
        last = piece
