"""What may be in a checkpoint: the right values come back, all others are refused by name and never called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
import zlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.types import Interrupt, Send

from agentfarm.sdk import payloads
from agentfarm.sdk.payloads import COMPRESS_FROM_BYTES, CheckpointRefused, Payloads
from tests.unit.sdk.running import MemoryChannel, agent, call


@dataclass
class Foreign:
    """Of a module that is no agent's."""

    text: str


def crafted(code: int, *words: object) -> bytes:
    """A payload as LangGraph's serializer would write it, that names something to call."""
    return b"\0msgpack\0" + ormsgpack.packb({"checkpoint": [ormsgpack.Ext(code, ormsgpack.packb(words))]})


VALUES: list[Any] = [
    None, 1, 2**63, "text", b"bytes", bytearray(b"more"), [1, {"a": [None, 1.5]}], {1: "whole numbers as keys"},
    {"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "on": date(2026, 1, 2), "for": timedelta(days=1, seconds=2)},
    [Decimal("1.10"), uuid.UUID(int=7), {1, 2}, frozenset({3}), deque([4]), Path("a/b"), ZoneInfo("Europe/Berlin")],
    [HumanMessage("hi"), AIMessage("ho"), AIMessageChunk(content="h"), ToolMessage("it is", tool_call_id="1")],
    [Interrupt("why?", id="1"), Send("node", {"x": {Decimal(1)}})], re.compile("a+"),
    "long" * COMPRESS_FROM_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_values_come_back_as_they_were(value: object) -> None:
    back = Payloads().unpack(Payloads().pack(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("code", [0, 1, 2, 4, 5])
def test_a_crafted_payload_calls_nothing(tmp_path: Path, code: int) -> None:
    argument: Any = {0: str(tmp_path / "made"), 1: [str(tmp_path / "made")]}.get(code, {"path": str(tmp_path / "made")})
    with pytest.raises(CheckpointRefused, match=r"os\.mkdir"):
        Payloads().unpack(crafted(code, "os", "mkdir", argument))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "payload",
    [
        crafted(3, "os", "path", "x", "exists"),
        crafted(3, "datetime", "datetime", "%Y", "strptime"),
        crafted(3, "datetime", "datetime", "x"),
        crafted(0, ["os"], "mkdir", "x"),
        crafted(0),
        crafted(9, "os", "mkdir", "x"),
        crafted(6, ormsgpack.Ext(1, ormsgpack.packb(("os", "mkdir", ["x"]))), [1], "C", b""),
        crafted(7, ormsgpack.Ext(1, ormsgpack.packb(("os", "mkdir", ["x"])))),
        crafted(0, "builtins", "set", [ormsgpack.Ext(1, ormsgpack.packb(("os", "mkdir", ["x"])))]),
        b'\0json\0{"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": ["x"]}',
        b"\0pickle\0cos\nmkdir\n",
        b"\0msgpack\0\xc1",
        b"\1msgpack\0not deflated",
        b"",
    ],
)
def test_other_ways_to_have_something_called_are_refused(
    payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointRefused):
        Payloads().unpack(payload)
    assert not list(tmp_path.iterdir())


def test_a_module_that_is_not_imported_stays_so() -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(CheckpointRefused, match=r"antigravity\.Joke"):
        Payloads().unpack(crafted(2, "antigravity", "Joke", {}))
    assert "antigravity" not in sys.modules


def test_a_type_outside_the_list_is_refused_by_name_when_it_is_written() -> None:
    with pytest.raises(CheckpointRefused, match=r"tests\.unit\.sdk\.test_payloads\.Foreign"):
        Payloads().pack({"deep": [{"inside": Foreign("x")}]})
    named = Payloads().with_types({(Foreign.__module__, "Foreign")})
    assert named.unpack(named.pack([Foreign("x")])) == [Foreign("x")]


def test_unpacking_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "CHECKPOINT_BYTES_MAX", 100_000)
    bomb = b"\1bytes\0" + zlib.compress(bytes(10_000_000), 9)
    with pytest.raises(CheckpointRefused, match="100,000"):
        Payloads().unpack(bomb)
    with pytest.raises(CheckpointRefused, match="100,000"):
        Payloads().pack(bytes(100_001))
    assert Payloads().unpack(Payloads().pack(bytes(100_000))) == bytes(100_000)
    with pytest.raises(CheckpointRefused):
        Payloads().unpack(Payloads().pack(bytes(50_000))[:-3])


OWN = """
    from typing import Any, TypedDict
    from langgraph.graph import START, StateGraph
    died = []
    class State(TypedDict, total=False):
        items: list[Any]
        count: int
    def make(state):
        from kinds import Color, Point, Trade
        return {"items": [Trade(price=1), Color.RED, Point(1, 2)]}
    def count(state):
        if not died:
            died.append(1)
            raise ConnectionError
        return {"count": sum(type(item).__module__ == "kinds" for item in state["items"])}
    builder = StateGraph(State)
    builder.add_node("make", make); builder.add_node("count", count)
    builder.add_edge(START, "make"); builder.add_edge("make", "count")
    graph = builder.compile()
"""
KINDS = """
    from enum import Enum
    from typing import NamedTuple
    from pydantic import BaseModel
    class Trade(BaseModel):
        price: int
    class Color(Enum):
        RED = 1
    class Point(NamedTuple):
        x: int
        y: int
    def harm(**_):
        raise SystemExit("called")
"""


async def test_values_of_the_agents_own_modules_come_back_where_no_step_imported_them_yet(tmp_path: Path) -> None:
    channel = MemoryChannel()
    loaded = agent(tmp_path, OWN, kinds__py=KINDS)
    with pytest.raises(ConnectionError):
        await loaded.run(call({}, checkpoints=channel))
    sys.modules.pop("kinds")
    output = await loaded.run(call({}, attempt=2, checkpoints=channel))
    assert output == {"items": [{"price": 1}, 1, {"x": 1, "y": 2}], "count": 3}
    with pytest.raises(CheckpointRefused, match=r"kinds\.harm"):
        Payloads().unpack(crafted(2, "kinds", "harm", {}))


async def test_a_graph_that_would_store_another_type_fails_by_its_name(tmp_path: Path) -> None:
    source = """
        from typing import Any, TypedDict
        from langgraph.graph import START, StateGraph
        class Session:
            def dict(self):
                return {"secret": 1}
        class State(TypedDict):
            session: Any
        builder = StateGraph(State)
        builder.add_node("make", lambda state: {"session": Session()})
        builder.add_edge(START, "make")
        graph = builder.compile()
    """
    with pytest.raises(CheckpointRefused, match=r"agent\.Session"):
        await agent(tmp_path, source).run(call({"session": None}, checkpoints=MemoryChannel()))


def test_langgraph_names_the_types_of_schemas_even_where_it_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text("import pydantic\nclass Trade(pydantic.BaseModel):\n    price: int\n")
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "agent.py").write_text(
        "from typing import TypedDict\nfrom foreign import Trade\nfrom langgraph.graph import START, StateGraph\n"
        "class State(TypedDict, total=False):\n    trade: Trade\n"
        "b = StateGraph(State)\nb.add_node('a', lambda s: {'trade': Trade(price=1)})\nb.add_edge(START, 'a')\n"
        "graph = b.compile()\n"
    )
    code = (
        "import langgraph.graph\nfrom agentfarm.sdk.testing import MemoryCheckpoints, farm_run\n"
        "kept = MemoryCheckpoints()\nprint(farm_run('agent', {}, checkpoints=kept).output)\n"
        "print(farm_run('agent', {}, attempt=2, checkpoints=kept).output)\n"
    )
    search = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": search}, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["{'trade': {'price': 1}}"] * 2, done.stderr
