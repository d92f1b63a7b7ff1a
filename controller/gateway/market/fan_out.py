"""One question to the feeds of several nodes at once: their lines as they come, and at the end who has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from agentfarm.errors import FarmError
from agentfarm.service import Tasks
from controller.core.model import NodeName
from controller.gateway.http.answers import dump
from controller.gateway.http.limits import FEED_NODES_AT_ONCE
from controller.gateway.http.problems import mistake_of, problem_of

LINES_WAITING_MAX: Final = 256
"""Unsent lines of all nodes; a slow caller slows the nodes."""
FINAL: Final = frozenset({"done", "problem"})


async def lines_of_all(answers: Mapping[NodeName, AsyncIterator[bytes]]) -> AsyncGenerator[bytes, None]:
    """Lines of NDJSON, each with its `node`, as they come from chunks of lines. The last one is `end`.

    A node that fails is a `problem` line and does not stop the others. When the caller leaves, all are closed.
    """
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(LINES_WAITING_MAX)
    room = asyncio.Semaphore(FEED_NODES_AT_ONCE)
    tasks = Tasks("feeds")
    for node, chunks in answers.items():
        tasks.errand(_put_lines(node, chunks, room, lines))
    outcomes: dict[str, str] = {}
    left = len(answers)
    try:
        while left:
            line = await lines.get()
            if line is None:
                left -= 1
                continue
            if line["event"] in FINAL:
                outcomes[line["node"]] = line["event"]
            yield dump(line) + b"\n"
        answered = sorted(node for node, event in outcomes.items() if event == "done")
        asked = sorted(answers)
        yield dump({"event": "end", "asked": asked, "answered": answered, "is_partial": answered != asked}) + b"\n"
    finally:
        await tasks.end()


async def _put_lines(
    node: NodeName, chunks: AsyncIterator[bytes], room: asyncio.Semaphore, lines: asyncio.Queue[dict[str, Any] | None]
) -> None:
    """Put every line of one node's answer into the queue, at last None."""
    try:
        async with room:
            async for chunk in chunks:
                for text in chunk.splitlines():
                    line = _read(text)
                    if line is not None:
                        await lines.put(line | {"node": node})
    except FarmError as problem:
        await lines.put({"event": "problem", "node": node, "problem": problem_of(problem)})
    except Exception as error:  # the other nodes' answers must not suffer from it
        await lines.put({"event": "problem", "node": node, "problem": problem_of(mistake_of(error, f"feed of {node}"))})
    finally:
        if isinstance(chunks, AsyncGenerator):
            with suppress(RuntimeError):
                await chunks.aclose()
    await lines.put(None)


def _read(text: bytes) -> dict[str, Any] | None:
    """A line from a node; None for what is none."""
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("event"), str) else None
