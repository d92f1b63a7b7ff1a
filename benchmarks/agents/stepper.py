"""A LangGraph agent for fault tests: three steps with a checkpoint after each, so that a second attempt goes on where
the first one had come to. Input and lines as those of recorder.py; each step takes a third of the time.
"""

import asyncio
import json
import os
import secrets
import time
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from agentfarm.sdk import context


class State(TypedDict, total=False):
    record: str
    seconds: float
    note: Any
    task: int
    attempt: int
    node: str
    run: str


def _write(state: State, event: str) -> dict[str, Any]:
    here = context()
    who = {"task": here.task_id, "attempt": here.attempt, "node": here.node, "note": state["note"]}
    line = {**who, "run": secrets.token_hex(8), "event": event, "at": time.time()}
    descriptor = os.open(state["record"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
    return {**who, "run": line["run"]}


async def begin(state: State) -> dict[str, Any]:
    change = _write(state, "began")
    await asyncio.sleep(state["seconds"] / 3)
    return change


async def go_on(state: State) -> dict[str, Any]:
    await asyncio.sleep(state["seconds"] / 3)
    return {}


async def end(state: State) -> dict[str, Any]:
    await asyncio.sleep(state["seconds"] / 3)
    return _write(state, "ended")


graph = (
    StateGraph(State)
    .add_node("begin", begin)
    .add_node("go_on", go_on)
    .add_node("end", end)
    .add_edge(START, "begin")
    .add_edge("begin", "go_on")
    .add_edge("go_on", "end")
    .add_edge("end", END)
    .compile()
)
