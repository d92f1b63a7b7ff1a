"""Chat models: the scripted one is deterministic and honest; LangChain's interface holds for every engine."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from agentfarm.errors import Forbidden, InvalidRequest, Unavailable
from agentfarm.sdk import llm
from agentfarm.sdk.models import engine_for
from agentfarm.sdk.models.chat import ChatRequest
from agentfarm.sdk.models.completions import check, streamed_piece, whole_piece
from agentfarm.sdk.models.plain import PlainChatModel
from agentfarm.sdk.models.scripted import ScriptedEngine

NOTES = "Nodes run a daemon. The controller keeps the truth in PostgreSQL.\nMarket data lives in QuestDB."


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "KEY_FILE", "ROLES"):
        monkeypatch.delenv(f"AGENTFARM_LLM_{name}", raising=False)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_facts_of_the_prompt_are_repeated_unchanged() -> None:
    text = llm().invoke("product: BTC-USD\nvwap: 65086.18\n- trades: 12").content
    assert text == "Product BTC-USD: vwap 65086.18; trades 12."


def test_a_question_is_answered_from_the_prompt() -> None:
    asked = [("system", NOTES), ("user", "Where does the controller keep the truth?")]
    assert llm().invoke(asked).content == "The controller keeps the truth in PostgreSQL."


def test_it_says_when_it_has_nothing_to_go_on() -> None:
    assert "no language model is configured" in llm().invoke([("system", NOTES), ("user", "Who is Ada?")]).content


@given(st.text(max_size=300), st.text(max_size=300))
def test_equal_prompts_give_equal_answers_whole_or_streamed(system: str, user: str) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    request = ChatRequest("scripted", messages)
    whole = ScriptedEngine().complete(request)
    assert whole == ScriptedEngine().complete(request)
    assert whole.text
    assert "".join(piece.text for piece in ScriptedEngine().stream(request)) == whole.text


def test_a_tool_is_called_when_the_prompt_names_it_and_its_answer_reported() -> None:
    model = llm().bind_tools([add])
    asked: list[Any] = [HumanMessage("Please add 19 and 23.")]
    answer = model.invoke(asked)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 19, "b": 23})]
    asked += [answer, ToolMessage("42", tool_call_id=answer.tool_calls[0]["id"])]
    assert model.invoke(asked).content == "The tool answered: 42"
    assert not model.invoke("Good morning: how are you?").tool_calls


def test_a_required_tool_is_called() -> None:
    for choice in ("any", "add", True):
        assert llm().bind_tools([add], tool_choice=choice).invoke("7 8").tool_calls[0]["args"] == {"a": 7, "b": 8}


def test_structured_output_has_its_form() -> None:
    class Order(BaseModel):
        product: str
        size: float

    order = llm().with_structured_output(Order).invoke("product: BTC-USD\nsize: 1.5")
    assert order == Order(product="BTC-USD", size=1.5)


async def test_streaming_adds_up_and_ends_with_usage() -> None:
    whole: Any = None
    async for chunk in llm().astream("a: 1\nb: 2"):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == "A 1: b 2."
    assert whole.usage_metadata["output_tokens"] == 4
    assert whole.response_metadata == {"model_name": "scripted", "finish_reason": "stop"}


async def test_the_loop_of_model_and_tools_ends_with_it() -> None:
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = llm().bind_tools([add])
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode([add]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    graph = builder.compile()
    output = await graph.ainvoke({"messages": [("user", "add 2 and 3")]})
    assert [message.content for message in output["messages"]] == ["add 2 and 3", "", "5", "The tool answered: 5"]
    assert isinstance(output["messages"][-1], AIMessage)


async def test_without_langchain_the_same_verbs_work() -> None:
    model = PlainChatModel(ScriptedEngine(), "scripted", {})
    messages = [("system", NOTES), {"role": "user", "content": "Where does market data live?"}]
    expected = "Market data lives in QuestDB."
    assert str(model.invoke(messages)) == expected
    assert (await model.ainvoke(messages)).content == expected
    assert "".join(piece.content for piece in model.stream(messages)) == expected
    assert "".join([piece.content async for piece in model.astream(messages)]) == expected
    with pytest.raises(InvalidRequest):
        model.invoke([{"content": "x"}])


def test_without_langchain_llm_loads_none_of_it() -> None:
    program = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "langchain_core" else find(name, *rest)
from agentfarm.sdk import llm
print(llm().invoke("a: 1\\nb: 2"), "langchain_core" in sys.modules, "httpx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "A 1: b 2. False False"


def test_roles_name_models() -> None:
    environment = {"AGENTFARM_LLM_URL": "http://x/v1", "AGENTFARM_LLM_ROLES": '{"smart": "big", "fast": "small"}'}
    assert engine_for("smart", environment)[1] == "big"
    with pytest.raises(InvalidRequest, match="Did you mean 'smart'"):
        engine_for("smrt", environment)
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        engine_for("smart", environment | {"AGENTFARM_LLM_ROLES": "[]"})
    assert engine_for("any-name", {"AGENTFARM_LLM_URL": "http://x/v1"})[1] == "any-name"


def test_what_each_status_means() -> None:
    check(200, {}, b"", 0)
    with pytest.raises(Unavailable) as busy:
        check(429, {"retry-after": "7"}, b'{"error": {"message": "slow down"}}', 0)
    assert "slow down" in str(busy.value)
    assert busy.value.data["retry_after_s"] == 7.0
    with pytest.raises(Unavailable) as dated:
        check(503, {"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, b"", 40.0)
    assert dated.value.data["retry_after_s"] == 60.0
    with pytest.raises(Forbidden, match="AGENTFARM_LLM_KEY_FILE"):
        check(401, {}, b"no", 0)
    with pytest.raises(InvalidRequest, match="too long"):
        check(400, {}, b'{"error": "too long"}', 0)


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b'{"choices": []}', b'{"choices": [{"message": 5}]}']))
def test_answers_that_are_none_are_unavailable_never_a_crash(content: bytes) -> None:
    with pytest.raises(Unavailable):
        whole_piece(content)
    with suppress(Unavailable):
        piece = streamed_piece(f"data: {content.decode('latin-1')}")
        assert piece is None or piece.text == ""


def test_an_error_in_the_middle_of_a_stream_is_raised() -> None:
    with pytest.raises(Unavailable, match="out of memory"):
        streamed_piece("data: " + json.dumps({"error": {"message": "out of memory"}}))
