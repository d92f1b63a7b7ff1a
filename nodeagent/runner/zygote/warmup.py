"""Running a small graph in the zygote, before anything is forked from it.

A first run imports what LangGraph puts off, fills caches, and lets the interpreter specialize its bytecode in place.
Done here, it is done once and shared; done in each replica, it costs each of them several MiB of its own and some
milliseconds of its first task.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypedDict

RUNS: Final = 12
"""Bytecode is specialized after eight executions."""


class _State(TypedDict):
    count: int


async def _async_step(state: _State) -> _State:
    from agentfarm.sdk import llm  # noqa: PLC0415 - as agents do

    await llm("smart").ainvoke("Warm up.")
    return {"count": state["count"] + 1}


def _sync_step(state: _State) -> _State:
    from agentfarm.sdk import llm  # noqa: PLC0415 - as agents do

    llm("smart").invoke("Warm up.")
    return {"count": state["count"] + 1}


def run_graph() -> None:
    """Run it as a replica would, with checkpoints and the scripted model. Leaves no thread behind.

    Raises whatever is wrong with LangGraph here.
    """
    asyncio.run(_runs())


async def _runs() -> None:
    from langgraph.graph import END, START, StateGraph  # noqa: PLC0415 - only environments that have it come here

    from agentfarm.sdk.call import Call  # noqa: PLC0415
    from agentfarm.sdk.graphs import wrap  # noqa: PLC0415
    from agentfarm.sdk.testing import MemoryCheckpoints  # noqa: PLC0415

    graph = StateGraph(_State)
    graph.add_node("first", _async_step)
    graph.add_node("second", _sync_step)
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", lambda _: "second", ["second"])
    graph.add_edge("second", END)
    agent = wrap("warm-up", graph.compile())
    checkpoints = MemoryCheckpoints()
    for number in range(RUNS):
        for store in (None, checkpoints):
            await agent.run(Call(number, 1, "warm-up", {"count": 0}, lambda _piece: None, store))
