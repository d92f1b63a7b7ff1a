"""Agents that are LangGraph graphs or LangChain runnables.

A graph runs on its thread with `durability="sync"`: each step's checkpoint is durable before the next begins, so that a
killed run repeats at most the steps that were in progress. Where a run begins:

| the thread's newest checkpoint | attempt | the run |
| --- | --- | --- |
| none | any | starts with the input |
| of this task | any but the first | continues from there; the input is not given again |
| of an earlier task (a conversation) | any | takes the input as its next turn, on the state the earlier turns left |

When a new turn begins, the steps that an earlier task left unfinished on the thread are dropped, as LangGraph does it.
A graph that stops at an `interrupt` ends its task with `__interrupt__` in the output. A later task on the same thread
with the input `{"command": {"resume": VALUE}}` answers it.

Imports LangChain: loaded only for agents that use it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final, Literal

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message
from langchain_core.runnables import Runnable, RunnableConfig

from agentfarm.sdk.call import Call
from agentfarm.sdk.jsonable import message_json, to_json
from agentfarm.sdk.run import Reject, Run, run_of
from agentfarm.sdk.signatures import schema_of

TASK_KEY: Final = "agentfarm_task"
"""In a checkpoint's metadata: the id of the task that wrote it."""
COMMAND_KEYS: Final = frozenset({"resume", "update", "goto"})
_STREAM_MODES: Final = ("values", "updates", "messages", "custom")


def wrap(name: str, value: Any) -> GraphAgent | RunnableAgent:
    """The agent for a graph, a graph not yet compiled, or any other runnable."""
    if importlib.util.find_spec("langgraph") is not None:
        from langgraph.graph.state import StateGraph  # noqa: PLC0415 - not every LangChain agent has LangGraph
        from langgraph.pregel import Pregel  # noqa: PLC0415

        graph = value.compile() if isinstance(value, StateGraph) else value
        if isinstance(graph, Pregel):
            return GraphAgent(name, graph)
    return RunnableAgent(name, value)


class GraphAgent:
    """A LangGraph graph as an agent. Its checkpointer, if it has one, is replaced by the farm's for each run."""

    kind: Literal["graph"] = "graph"

    def __init__(self, name: str, graph: Any) -> None:
        self.name = name
        from agentfarm.sdk.checkpoints import FarmCheckpointer  # noqa: PLC0415 - needs LangGraph
        from agentfarm.sdk.payloads import schema_types  # noqa: PLC0415

        self._checkpointer = FarmCheckpointer
        self._graph = graph
        self._types = schema_types(graph)
        self._wants_object = self.schemas()["input"].get("type") == "object"

    def schemas(self) -> dict[str, Any]:
        """JSON schemas of input and output; an empty one is not known."""
        schemas = _schemas(self._graph)
        builder = getattr(self._graph, "builder", None)
        for name in ("input", "output"):
            schemas[name] = schemas[name] or schema_of(getattr(builder, f"{name}_schema", Any))
        return schemas

    async def run(self, call: Call) -> object:
        """Run the graph to its end, or to an interrupt; its output state as JSON values."""
        with run_of(call) as run:
            config: RunnableConfig = {
                "configurable": {"thread_id": call.thread_id},
                "metadata": {TASK_KEY: call.task_id},
            }
            graph, options = self._graph, {}
            if self._wants_object and not isinstance(call.input, Mapping | None):
                raise Reject("The input must be a JSON object with the keys of the graph's state.")
            given: Any = _graph_input(call.input)
            if call.checkpoints is not None and graph.checkpointer is not False:
                saver = self._checkpointer(call.checkpoints, run.loop, run.thread).with_allowlist(self._types)
                graph, options = graph.copy(update={"checkpointer": saver}), {"durability": "sync"}
                if call.attempt > 1 and await _was_begun(saver, config, call.task_id):
                    given = None
            return await _streamed(run, graph, given, config, options)


async def _was_begun(saver: Any, config: RunnableConfig, task_id: int) -> bool:
    """Whether the thread's newest checkpoint is of this very task."""
    newest = await saver.aget_tuple(config)
    return newest is not None and newest.metadata.get(TASK_KEY) == task_id


async def _streamed(run: Run, graph: Any, given: Any, config: RunnableConfig, options: dict[str, Any]) -> object:
    output: Any = None
    interrupts: list[Any] = []
    async for mode, chunk in graph.astream(given, config, stream_mode=list(_STREAM_MODES), **options):
        if mode == "values":
            output = chunk
        elif mode == "updates":
            interrupts.extend(chunk.get("__interrupt__", ()) if isinstance(chunk, Mapping) else ())
            for node, data in chunk.items():
                run.emit({"type": "update", "node": node, "data": data}, lenient=True)
        elif mode == "messages":
            message, where = chunk
            _emit_message(run, message, where.get("langgraph_node"))
        else:
            run.emit({"type": "custom", "data": chunk}, lenient=True)
    plain = to_json(output)
    if interrupts and isinstance(plain, dict):
        plain["__interrupt__"] = to_json(interrupts, where="__interrupt__")
    return plain


def _emit_message(run: Run, message: BaseMessage, node: str | None) -> None:
    piece: dict[str, Any] = {"type": "message", "message": message_json(message)}
    if node is not None:
        piece["node"] = node
    run.emit(piece, lenient=True)


def _graph_input(value: object) -> Any:
    """The input as the graph takes it: `{"command": {"resume": …}}` becomes a Command, as in LangGraph's own API."""
    if not (isinstance(value, Mapping) and value.keys() == {"command"} and isinstance(value["command"], Mapping)):
        return {} if value is None else value
    command = value["command"]
    if unknown := sorted(command.keys() - COMMAND_KEYS):
        raise Reject(f"A command has no {', '.join(unknown)}; it has {', '.join(sorted(COMMAND_KEYS))}.")
    from langgraph.types import Command  # noqa: PLC0415 - LangGraph is there: this is a graph

    return Command(**command)


class RunnableAgent:
    """Any other LangChain runnable as an agent. It has no steps of its own, so it keeps no checkpoints."""

    kind: Literal["runnable"] = "runnable"

    def __init__(self, name: str, runnable: Runnable[Any, Any]) -> None:
        self.name = name
        self._runnable = runnable

    def schemas(self) -> dict[str, Any]:
        """JSON schemas of input and output; an empty one is not known."""
        return _schemas(self._runnable)

    async def run(self, call: Call) -> object:
        """The runnable's output as JSON values. Texts and messages are shown to watchers as they come."""
        with run_of(call) as run:
            whole: Any = None
            async for chunk in self._runnable.astream(call.input):
                if isinstance(chunk, BaseMessage):
                    _emit_message(run, chunk, None)
                elif isinstance(chunk, str):
                    run.emit({"type": "text", "text": chunk})
                whole = chunk if whole is None else _joined(whole, chunk)
            if isinstance(whole, BaseMessageChunk):
                whole = message_chunk_to_message(whole)
            return to_json(whole)


def _joined(whole: Any, chunk: Any) -> Any:
    """As LangChain joins the chunks of a stream: their sum where they can be added, else the later one."""
    try:
        return whole + chunk
    except TypeError:
        return chunk


def _schemas(runnable: Runnable[Any, Any]) -> dict[str, Any]:
    schemas = {}
    for name, read in (("input", runnable.get_input_jsonschema), ("output", runnable.get_output_jsonschema)):
        try:
            schemas[name] = read()
        except Exception:  # types without a JSON schema: not known, which is no error
            schemas[name] = {}
    return schemas
