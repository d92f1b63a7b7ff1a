"""Graphs as agents: durable runs, going on after a death, conversations, streaming."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentfarm.sdk import LeaseLost, LoadedAgent, Reject, load_agent
from tests.unit.sdk.running import MemoryChannel, agent, call

STEPS = """
    import operator
    from typing import Annotated, TypedDict
    from langgraph.graph import START, StateGraph

    ran, dies_in = [], set()

    class State(TypedDict):
        base: int
        log: Annotated[list[str], operator.add]

    def step(name):
        def run(state):
            ran.append(name)
            if name in dies_in:
                raise ConnectionError(f"killed in {name}")
            return {"log": [f"{name}{state['base']}"]}
        return run

    builder = StateGraph(State)
    for before, name in ((START, "a"), ("a", "b"), ("b", "c")):
        builder.add_node(name, step(name))
        builder.add_edge(before, name)
    graph = builder.compile()
"""


def module(loaded: LoadedAgent) -> Any:
    """The agent's own module, whose `ran` and `dies_in` the tests read and set."""
    assert loaded.kind == "graph"
    return sys.modules["agent"]


@pytest.mark.parametrize("dies", ["a", "b", "c"])
async def test_a_killed_run_goes_on_after_its_last_finished_step(tmp_path: Path, dies: str) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, STEPS)
    module(loaded).dies_in.add(dies)
    with pytest.raises(ConnectionError):
        await loaded.run(call({"base": 5}, checkpoints=channel))
    first = list(module(loaded).ran)

    loaded = load_agent(tmp_path)  # another process: nothing is left but the checkpoints
    output = await loaded.run(call({"base": 5}, attempt=2, checkpoints=channel))
    assert output == {"base": 5, "log": ["a5", "b5", "c5"]}
    assert first[:-1] + module(loaded).ran == ["a", "b", "c"]


@pytest.mark.parametrize("survived", range(1, 9))
async def test_a_run_may_lose_its_lease_at_any_write_and_another_attempt_ends_it(tmp_path: Path, survived: int) -> None:
    channel = MemoryChannel(lose_lease_at=survived)
    loaded = agent(tmp_path, STEPS)
    expected = {"base": 1, "log": ["a1", "b1", "c1"]}
    with suppress(LeaseLost):
        assert await loaded.run(call({"base": 1}, checkpoints=channel)) == expected
    channel.lose_lease_at = None
    assert await load_agent(tmp_path).run(call({"base": 1}, attempt=2, checkpoints=channel)) == expected


async def test_a_finished_run_whose_result_was_lost_runs_nothing_again(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, STEPS)
    output = await loaded.run(call({"base": 2}, checkpoints=channel))
    again = load_agent(tmp_path)
    assert await again.run(call({"base": 2}, attempt=2, checkpoints=channel)) == output
    assert module(again).ran == []


async def test_each_step_is_durable_before_the_next_begins(tmp_path: Path) -> None:
    class Watching(MemoryChannel):
        async def put(self, checkpoint: Any) -> None:
            await super().put(checkpoint)
            if checkpoint.payload:
                stored.append(len(module(loaded).ran))

    stored: list[int] = []
    loaded = agent(tmp_path, STEPS)
    await loaded.run(call({"base": 0}, checkpoints=Watching()))
    assert stored == [0, 0, 1, 2, 3]  # the input, the state before a, and after a, b, c


async def test_a_parallel_step_that_finished_is_not_repeated(tmp_path: Path) -> None:
    source = """
        import operator
        from typing import Annotated, TypedDict
        from langgraph.graph import START, StateGraph
        ran, dies_in = [], set()
        class State(TypedDict):
            log: Annotated[list[str], operator.add]
        def left(state):
            ran.append("left")
            return {"log": ["left"]}
        async def right(state):
            import asyncio
            while dies_in and not left_is_stored():
                await asyncio.sleep(0)
            ran.append("right")
            if "right" in dies_in:
                raise ConnectionError("killed")
            return {"log": ["right"]}
        left_is_stored = None
        graph = StateGraph(State)
        graph.add_node("left", left); graph.add_node("right", right)
        graph.add_edge(START, "left"); graph.add_edge(START, "right")
    """
    channel = MemoryChannel()
    loaded = agent(tmp_path, source)
    module(loaded).dies_in.add("right")
    module(loaded).left_is_stored = lambda: any(
        write.index >= 0 for record in channel.records.values() for write in record.writes
    )
    with pytest.raises(ConnectionError):
        await loaded.run(call({"log": []}, checkpoints=channel))
    loaded = load_agent(tmp_path)
    assert await loaded.run(call({"log": []}, attempt=2, checkpoints=channel)) == {"log": ["left", "right"]}
    assert module(loaded).ran == ["right"]


CHAT = """
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, MessagesState, StateGraph
    died = []
    def reply(state):
        if state["messages"][-1].content == "die" and not died:
            died.append(1)
            raise ConnectionError("killed")
        return {"messages": [AIMessage(f"{len(state['messages'])}: {state['messages'][-1].content}", id=None)]}
    graph = StateGraph(MessagesState)
    graph.add_node("reply", reply)
    graph.add_edge(START, "reply")
"""


def contents(output: Any) -> list[str]:
    return [message["content"] for message in output["messages"]]


def turn(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_a_new_task_on_a_named_thread_is_the_next_turn(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, CHAT)
    await loaded.run(call(turn("hello"), task=1, thread="talk", checkpoints=channel))
    output = await loaded.run(call(turn("and?"), task=2, thread="talk", checkpoints=channel))
    assert contents(output) == ["hello", "1: hello", "and?", "3: and?"]


async def test_the_second_attempt_of_a_turn_does_not_say_it_twice(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, CHAT)
    await loaded.run(call(turn("hello"), task=1, thread="talk", checkpoints=channel))
    with pytest.raises(ConnectionError):
        await loaded.run(call(turn("die"), task=2, thread="talk", checkpoints=channel))
    output = await loaded.run(call(turn("die"), task=2, attempt=2, thread="talk", checkpoints=channel))
    assert contents(output) == ["hello", "1: hello", "die", "3: die"]


async def test_an_attempt_that_died_before_its_first_checkpoint_takes_its_input(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, CHAT)
    await loaded.run(call(turn("hello"), task=1, thread="talk", checkpoints=channel))
    output = await loaded.run(call(turn("and?"), task=2, attempt=3, thread="talk", checkpoints=channel))
    assert contents(output) == ["hello", "1: hello", "and?", "3: and?"]


async def test_a_turn_after_one_that_never_ended_begins_at_the_start(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, CHAT)
    with pytest.raises(ConnectionError):
        await loaded.run(call(turn("die"), task=1, thread="talk", checkpoints=channel))
    output = await loaded.run(call(turn("hello"), task=2, thread="talk", checkpoints=channel))
    assert contents(output) == ["die", "hello", "2: hello"]


async def test_a_thread_goes_on_on_a_node_whose_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langgraph.checkpoint.base import id as ids

    channel = MemoryChannel()
    loaded = agent(tmp_path, CHAT)
    now = ids.time.time_ns
    monkeypatch.setattr(ids.time, "time_ns", lambda: now() + 3_600_000_000_000)  # this node is an hour ahead
    await loaded.run(call(turn("hello"), task=1, thread="talk", checkpoints=channel))
    monkeypatch.setattr(ids.time, "time_ns", now)
    monkeypatch.setattr(ids, "_last_v6_timestamp", None)  # a process that has given no id yet
    for task, text in ((2, "and?"), (3, "more")):
        output = await loaded.run(call(turn(text), task=task, thread="talk", checkpoints=channel))
    assert contents(output) == ["hello", "1: hello", "and?", "3: and?", "more", "5: more"]


INTERRUPT = """
    from typing import TypedDict
    from langgraph.graph import START, StateGraph
    from langgraph.types import interrupt
    class State(TypedDict, total=False):
        amount: int
        approved: bool
    def ask(state):
        return {"approved": interrupt({"question": f"pay {state['amount']}?"})}
    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
"""


async def test_an_interrupt_ends_the_task_and_a_later_one_answers_it(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, INTERRUPT)
    output: Any = await loaded.run(call({"amount": 5}, task=1, thread="t", checkpoints=channel))
    assert output["amount"] == 5
    assert [item["value"] for item in output["__interrupt__"]] == [{"question": "pay 5?"}]
    answer = {"command": {"resume": True}}
    assert await loaded.run(call(answer, task=2, thread="t", checkpoints=channel)) == {"amount": 5, "approved": True}
    with pytest.raises(Reject, match="has no resumes"):
        await loaded.run(call({"command": {"resumes": True}}, task=3, thread="t", checkpoints=channel))


async def test_steps_and_messages_are_shown_as_they_come(tmp_path: Path) -> None:
    source = """
        from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
        from langgraph.config import get_stream_writer
        from langgraph.graph import START, MessagesState, StateGraph
        model = GenericFakeChatModel(messages=iter(["two words"]))
        async def reply(state):
            get_stream_writer()({"half": 50})
            return {"messages": [await model.ainvoke(state["messages"])]}
        graph = StateGraph(MessagesState)
        graph.add_node("reply", reply)
        graph.add_edge(START, "reply")
    """
    pieces: list[Any] = []
    output = await agent(tmp_path, source).run(call(turn("hi"), emit=pieces.append))
    assert contents(output) == ["hi", "two words"]
    assert {"type": "custom", "data": {"half": 50}} in pieces
    texts = [piece["message"]["content"] for piece in pieces if piece["type"] == "message"]
    assert "".join(texts) == "two words"
    assert len(texts) > 1
    (update,) = [piece for piece in pieces if piece["type"] == "update"]
    assert update["node"] == "reply"
    assert update["data"]["messages"][0]["content"] == "two words"


async def test_a_graph_invoked_in_a_plain_function_keeps_its_checkpoints(tmp_path: Path) -> None:
    source = (
        STEPS.replace("graph = builder.compile()", "")
        + """
    from agentfarm.sdk import checkpointer, context
    def main(base: int):
        config = {"configurable": {"thread_id": context().thread_id}}
        graph = builder.compile(checkpointer=checkpointer())
        begun = graph.get_state(config).values
        output = graph.invoke(None if begun else {"base": base}, config, durability="sync")
        return {**output, "history": len(list(graph.get_state_history(config)))}
    """
    )
    channel = MemoryChannel()
    loaded = agent(tmp_path, source)
    sys.modules["agent"].dies_in.add("c")
    with pytest.raises(ConnectionError):
        await loaded.run(call({"base": 3}, checkpoints=channel))
    loaded = load_agent(tmp_path)
    output = await loaded.run(call({"base": 3}, attempt=2, checkpoints=channel))
    assert output == {"base": 3, "log": ["a3", "b3", "c3"], "history": 5}
    assert sys.modules["agent"].ran == ["c"]


async def test_a_graph_invoked_synchronously_on_the_loop_is_refused_not_hung(tmp_path: Path) -> None:
    source = (
        STEPS.replace("graph = builder.compile()", "")
        + """
    from agentfarm.sdk import checkpointer
    async def main(input):
        config = {"configurable": {"thread_id": "t"}}
        return builder.compile(checkpointer=checkpointer()).invoke({"base": 1}, config)
    """
    )
    with pytest.raises(RuntimeError, match=r"await graph\.ainvoke"):
        await asyncio.wait_for(agent(tmp_path, source).run(call(checkpoints=MemoryChannel())), 60)


async def test_subgraphs_and_rich_state_survive(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from datetime import date
        from decimal import Decimal
        from typing import TypedDict
        from langgraph.graph import START, StateGraph
        died = []
        @dataclass
        class Trade:
            price: Decimal
            on: date
        class State(TypedDict, total=False):
            trade: Trade
            total: Decimal
        inner = StateGraph(State)
        inner.add_node("make", lambda s: {"trade": Trade(Decimal("1.10"), date(2026, 1, 2))})
        def double(s):
            if not died:
                died.append(1)
                raise ConnectionError
            return {"total": s["trade"].price * 2}
        inner.add_node("double", double)
        inner.add_edge(START, "make"); inner.add_edge("make", "double")
        graph = StateGraph(State)
        graph.add_node("inner", inner.compile())
        graph.add_node("end", lambda s: {"total": s["total"] + 1})
        graph.add_edge(START, "inner"); graph.add_edge("inner", "end")
    """
    channel = MemoryChannel()
    loaded = agent(tmp_path, source)
    with pytest.raises(ConnectionError):
        await loaded.run(call({}, checkpoints=channel))
    output = await loaded.run(call({}, attempt=2, checkpoints=channel))
    assert output == {"trade": {"price": "1.10", "on": "2026-01-02"}, "total": "3.20"}
    assert len({namespace for _, namespace, _ in channel.records}) == 2


async def test_channels_stored_as_differences_are_rebuilt(tmp_path: Path) -> None:
    source = """
        from typing import Annotated, TypedDict
        from langgraph.channels import DeltaChannel
        from langgraph.graph import START, StateGraph
        def joined(old, updates):
            return [*(old or []), *(item for update in updates for item in update)]
        died = []
        class State(TypedDict):
            log: Annotated[list, DeltaChannel(joined, snapshot_frequency=3)]
        def step(name):
            def run(state):
                if name == "d" and not died:
                    died.append(1)
                    raise ConnectionError
                return {"log": [f"{name}{len(state['log'])}"]}
            return run
        graph = StateGraph(State)
        for before, name in ((START, "a"), ("a", "b"), ("b", "c"), ("c", "d")):
            graph.add_node(name, step(name)); graph.add_edge(before, name)
    """
    channel = MemoryChannel()
    loaded = agent(tmp_path, source)
    with pytest.raises(ConnectionError):
        await loaded.run(call({"log": ["in"]}, checkpoints=channel))
    output = await loaded.run(call({"log": ["in"]}, attempt=2, checkpoints=channel))
    assert output == {"log": ["in", "a1", "b2", "c3", "d4"]}


async def test_large_states_are_compressed(tmp_path: Path) -> None:
    channel = MemoryChannel()
    await agent(tmp_path, STEPS).run(call({"base": 1, "log": ["x" * 100_000]}, checkpoints=channel))
    assert max(len(record.payload) for record in channel.records.values()) < 5_000


LAMBDA = "from langchain_core.runnables import RunnableLambda\n"
MODEL = "from langchain_core.language_models.fake_chat_models import GenericFakeChatModel\n"


@pytest.mark.parametrize(
    ("source", "value", "output"),
    [
        (f"{LAMBDA}agent = RunnableLambda(lambda x: x + 1)", 1, 2),
        (f"{LAMBDA}agent = RunnableLambda(str.upper) | (lambda x: [x])", "a", ["A"]),
        (f"{MODEL}agent = GenericFakeChatModel(messages=iter(['so it is']))", "hi", "so it is"),
    ],
)
async def test_runnables_are_agents(tmp_path: Path, source: str, value: object, output: object) -> None:
    loaded = agent(tmp_path, source)
    assert loaded.kind == "runnable"
    result: Any = await loaded.run(call(value))
    assert (result["content"] if isinstance(result, dict) else result) == output


async def test_a_factory_of_a_graph_is_called_at_import(tmp_path: Path) -> None:
    source = STEPS.replace("graph = builder.compile()", "def make_graph(config):\n        return builder")
    (tmp_path / "x").mkdir()
    loaded = agent(tmp_path, source, "agent.py:make_graph")
    assert loaded.kind == "graph"
    assert await loaded.run(call({"base": 1})) == {"base": 1, "log": ["a1", "b1", "c1"]}
    assert loaded.schemas()["input"]["properties"].keys() == {"base", "log"}


async def test_an_input_that_is_no_object_is_rejected_for_good(tmp_path: Path) -> None:
    with pytest.raises(Reject, match="must be a JSON object"):
        await agent(tmp_path, STEPS).run(call([1]))
