"""Counts down, one durable step a number: watch it, kill it, and see it go on where it was.

Each number is one run of a step of the graph, followed by a checkpoint. So when the replica, or the whole node, is
killed in the middle, the next attempt goes on with the next number; `steps` in the answer says which attempt took which
step, and where.

    farmctl task submit countdown '{"start": 20, "pause_s": 1}'
"""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from agentfarm.sdk import Reject, context, emit

START_MAX = 1_000
PAUSE_MAX_S = 60.0


class State(TypedDict, total=False):
    """What the graph knows: the input, and every step taken so far."""

    start: int
    pause_s: float
    left: int
    steps: Annotated[list[dict[str, Any]], operator.add]


def begin(state: State) -> State:
    """Check the input and set the counter."""
    start, pause_s = state.get("start", 10), state.get("pause_s", 0.5)
    if not isinstance(start, int) or not 0 <= start <= START_MAX:
        raise Reject(f"`start` must be a whole number from 0 to {START_MAX}.")
    if not isinstance(pause_s, int | float) or not 0 <= pause_s <= PAUSE_MAX_S:
        raise Reject(f"`pause_s` must be a number from 0 to {PAUSE_MAX_S}.")
    return {"start": start, "pause_s": float(pause_s), "left": start}


async def count(state: State) -> State:
    """Say the next number, and wait."""
    here = context()
    emit({"type": "count", "left": state["left"], "attempt": here.attempt, "node": here.node})
    await asyncio.sleep(state["pause_s"])
    step = {"number": state["left"], "attempt": here.attempt, "node": here.node, "replica": here.replica}
    return {"left": state["left"] - 1, "steps": [step]}


def go_on(state: State) -> str:
    """Count again until nothing is left."""
    return "count" if state["left"] > 0 else END


builder = StateGraph(State)
builder.add_node("begin", begin)
builder.add_node("count", count)
builder.add_edge(START, "begin")
builder.add_conditional_edges("begin", go_on, ["count", END])
builder.add_conditional_edges("count", go_on, ["count", END])
graph = builder.compile()
