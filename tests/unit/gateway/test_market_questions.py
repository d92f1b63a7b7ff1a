"""Questions to nodes' market data over HTTP: which nodes they reach, what comes back, and which nodes are missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from agentfarm.errors import Conflict, FarmError, Unavailable
from controller.core.model import Measured, NodeName
from controller.gateway.market import fan_out
from controller.gateway.market.fan_out import lines_of_all
from tests.unit.gateway.small_farm import SmallFarm

DONE = b'{"event": "done", "is_good": true}\n'


class Feeds:
    """Nodes whose answers are written down; None is one that never ends."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes] | FarmError | None] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.closed: list[str] = []

    async def ask(self, node: NodeName, service: str, question: Mapping[str, Any]) -> AsyncIterator[bytes]:
        assert service == "market"
        self.asked.append((node, question["verb"], dict(question["arguments"])))
        answer = self.answers[node]
        try:
            if isinstance(answer, FarmError):
                raise answer
            yield b'{"event": "started"}\n'
            for chunk in answer or ():
                yield chunk
            if answer is None:
                await asyncio.Event().wait()
        finally:
            self.closed.append(node)


@pytest.fixture
async def small() -> SmallFarm:
    """Two nodes with market data, of one product each and one in common, and one node without."""
    farm = SmallFarm("node-1", "node-2", "node-3")
    await farm.start("echo")
    for name, products in (("node-1", {"BTC-USD", "ETH-USD"}), ("node-2", {"BTC-USD"}), ("node-3", set())):
        node = farm.engine.state.nodes[NodeName(name)]
        node.products = frozenset(products)
        node.measured = Measured(market_state="live") if products else None
    return farm


@pytest.fixture
def feeds(small: SmallFarm) -> Feeds:
    made = Feeds()
    small.app.state.farm = replace(small.app.state.farm, services=made)
    return made


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [orjson.loads(line) for line in answer.content.splitlines() if line]


async def test_all_nodes_that_hold_a_product_are_asked_and_each_line_names_its_node(
    http: httpx.AsyncClient, feeds: Feeds
) -> None:
    feeds.answers = {"node-1": [DONE], "node-2": [b'{"event": "product", "product": "BTC-USD"}\n' + DONE]}
    rows = lines(await http.post("/v1/market/verify", json={"product": "BTC-USD"}))
    assert sorted(feeds.asked) == [
        ("node-1", "verify", {"product": "BTC-USD"}),
        ("node-2", "verify", {"product": "BTC-USD"}),
    ]
    assert {line["node"] for line in rows[:-1]} == {"node-1", "node-2"}
    assert rows[-1] == {
        "event": "end",
        "asked": ["node-1", "node-2"],
        "answered": ["node-1", "node-2"],
        "is_partial": False,
    }
    await http.post("/v1/market/verify", json={"product": "ETH-USD"})
    assert [node for node, _, _ in feeds.asked[2:]] == ["node-1"]


async def test_a_node_that_fails_is_a_line_and_makes_the_answer_partial(http: httpx.AsyncClient, feeds: Feeds) -> None:
    feeds.answers = {"node-1": [DONE], "node-2": Unavailable("Node node-2 cannot be reached.")}
    rows = lines(await http.get("/v1/market/gaps?since=2026-03-01T12:00:00%2B01:00&open=1"))
    assert feeds.asked[0][2] == {"since": "2026-03-01T11:00:00Z", "open": True}
    problem = next(line for line in rows if line["event"] == "problem")
    assert (problem["node"], problem["problem"]["code"]) == ("node-2", "unavailable")
    assert rows[-1]["is_partial"]
    assert rows[-1]["answered"] == ["node-1"]


async def test_an_answer_without_its_end_is_no_answer(http: httpx.AsyncClient, feeds: Feeds) -> None:
    feeds.answers = {"node-1": [b'{"event": "progress"}\nno json\n[1]\n'], "node-2": [DONE]}
    rows = lines(await http.post("/v1/market/verify"))
    assert [line["event"] for line in rows if line.get("node") == "node-1"] == ["started", "progress"]
    assert rows[-1]["answered"] == ["node-2"]


async def test_a_refusal_of_the_only_node_asked_is_a_status(http: httpx.AsyncClient, feeds: Feeds) -> None:
    feeds.answers = {"node-2": Conflict("This node is answering another question (verify).")}
    answer = await http.post("/v1/market/replay", json={"node": "node-2"})
    assert answer.status_code == 409
    assert "another question" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "Neither a node nor a product"),
        ({"node": "nod"}, 400, "nod"),
        ({"node": "node-9"}, 404, "node-9"),
        ({"product": "btc-usd"}, 404, "BTC-USD"),
        ({"product": "'; DROP"}, 400, "product"),
        ({"node": "node-1", "since": "2026-03-01T12:00:00"}, 400, "since"),
        ({"node": "node-1", "since": "2026-03-02T12:00:00Z", "until": "2026-03-01T12:00:00Z"}, 400, "until"),
        ({"node": "node-1", "til": "2026-03-01T12:00:00Z"}, 400, "until"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    http: httpx.AsyncClient, feeds: Feeds, body: dict[str, Any], status: int, words: str
) -> None:
    answer = await http.post("/v1/market/replay", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert feeds.asked == []


async def test_a_farm_without_market_data_says_what_to_do(
    http: httpx.AsyncClient, small: SmallFarm, feeds: Feeds
) -> None:
    for node in small.engine.state.nodes.values():
        node.products, node.measured = frozenset(), None
    answer = await http.get("/v1/market/gaps")
    assert answer.status_code == 404
    assert "docs/market-data.md" in answer.json()["remedy"]


async def test_a_caller_that_leaves_ends_every_nodes_answer(feeds: Feeds) -> None:
    feeds.answers = {"node-1": None, "node-2": None}
    question = {"verb": "verify", "arguments": {}}
    answer = lines_of_all(
        {NodeName(name): aiter(feeds.ask(NodeName(name), "market", question)) for name in feeds.answers}
    )
    assert {orjson.loads(await anext(answer))["node"] for _ in range(2)} == {"node-1", "node-2"}
    await answer.aclose()
    assert sorted(feeds.closed) == ["node-1", "node-2"]


async def test_a_thousand_nodes_are_asked_a_few_at_a_time(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "FEED_NODES_AT_ONCE", 3)
    names = [NodeName(f"node-{number}") for number in range(1000)]
    feeds.answers = {name: None if number < 3 else [DONE] for number, name in enumerate(names)}
    answer = lines_of_all({name: aiter(feeds.ask(name, "market", {"verb": "gaps", "arguments": {}})) for name in names})
    for _ in range(3):
        await anext(answer)
    assert len(feeds.asked) == 3
    await answer.aclose()
