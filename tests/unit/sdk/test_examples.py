"""Every example runs as it is, and says what it should."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.agents.sources import find_agents
from agentfarm.errors import Unavailable
from agentfarm.sdk import Reject
from agentfarm.sdk.market import Trade
from agentfarm.sdk.testing import FarmRun, MemoryCheckpoints, farm_arun, farm_run, load

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTFARM_LLM_URL", "AGENTFARM_TSDB"):
        monkeypatch.delenv(name, raising=False)


def test_all_examples_are_found_by_name() -> None:
    assert [agent.name for agent in find_agents(EXAMPLES)] == [
        "countdown",
        "echo",
        "market-brief",
        "question-answering",
    ]


@pytest.mark.parametrize("value", [None, 5, "text", [1, {"a": None}], {"b": 1.5}])
def test_echo_answers_with_its_input(value: object) -> None:
    assert farm_run(EXAMPLES / "echo.py", value).output == value


def test_countdown_counts_and_shows_each_number() -> None:
    run = farm_run(EXAMPLES / "countdown.py", {"start": 3, "pause_s": 0})
    assert [step["number"] for step in run.output["steps"]] == [3, 2, 1]
    assert [piece["data"]["left"] for piece in run.pieces if piece["type"] == "custom"] == []
    assert [piece["left"] for piece in run.pieces if piece["type"] == "count"] == [3, 2, 1]


async def test_a_countdown_that_was_killed_goes_on_where_it_was() -> None:
    checkpoints = MemoryCheckpoints()
    loaded = load(EXAMPLES / "countdown.py")
    module = sys.modules["countdown"]
    real, calls = module.emit, []

    def dying(piece: Any) -> None:
        calls.append(piece["left"])
        if len(calls) == 3:
            raise ConnectionError("the replica was killed")
        real(piece)

    module.emit = dying
    with pytest.raises(ConnectionError):
        await farm_arun(loaded, {"start": 4, "pause_s": 0}, checkpoints=checkpoints)
    module.emit = real
    run: FarmRun = await farm_arun(loaded, {"start": 4, "pause_s": 0}, attempt=2, checkpoints=checkpoints)
    assert [(step["number"], step["attempt"]) for step in run.output["steps"]] == [(4, 1), (3, 1), (2, 2), (1, 2)]


@pytest.mark.parametrize("value", [{"start": -1}, {"start": "3"}, {"pause_s": 100}, [1]])
def test_countdown_rejects_what_makes_no_sense(value: object) -> None:
    with pytest.raises(Reject):
        farm_run(EXAMPLES / "countdown.py", value)


def test_question_answering_answers_from_its_text() -> None:
    run = farm_run(EXAMPLES / "question_answering.py", {"question": "What happens when a node is lost?"})
    assert "its tasks are tried again there" in run.output["answer"]
    assert run.output.keys() == {"question", "answer", "sources"}
    streamed = "".join(piece["message"]["content"] for piece in run.pieces if piece["type"] == "message")
    assert streamed == run.output["answer"]


def test_question_answering_of_a_text_of_ones_own_and_of_nothing() -> None:
    asked = {"question": "Which colour has the door?", "context": "The house is old.\nThe door has a green colour."}
    assert farm_run(EXAMPLES / "question_answering.py", asked).output["answer"] == "The door has a green colour."
    asked["question"] = "Who is king?"
    assert farm_run(EXAMPLES / "question_answering.py", asked).output["answer"] == "The text says nothing about that."
    with pytest.raises(Reject, match="needs a `question`"):
        farm_run(EXAMPLES / "question_answering.py", {})


@pytest.mark.parametrize(
    "value", [{}, {"product": 5}, {"product": "A", "minutes": 0}, {"product": "A", "since": "now"},
              {"product": "A", "first_trade_id": "1"}]
)  # fmt: skip
def test_market_brief_rejects_what_makes_no_sense(value: object) -> None:
    with pytest.raises(Reject):
        farm_run(EXAMPLES / "market_brief", value)


def test_market_brief_without_market_data_says_so() -> None:
    with pytest.raises(Unavailable, match="This node has no market data"):
        farm_run(EXAMPLES / "market_brief", {"product": "BTC-USD"})


amounts = st.decimals(Decimal("0.00000001"), Decimal(1000000), places=8)
runs = st.lists(st.tuples(amounts, amounts, st.sampled_from(["buy", "sell"])), min_size=1, max_size=30)


@given(runs)
def test_measures_agree_with_exact_fractions(rows: list[tuple[Decimal, Decimal, str]]) -> None:
    load(EXAMPLES / "market_brief")
    began = datetime(2026, 1, 1, tzinfo=UTC)
    trades = [
        Trade(began + timedelta(seconds=number), "venue", "A", number, price, size, side)
        for number, (price, size, side) in enumerate(rows)
    ]
    figures = sys.modules["measures"].measures(trades)
    volume = sum(Fraction(size) for _, size, _ in rows)
    notional = sum(Fraction(price) * Fraction(size) for price, size, _ in rows)
    signed = sum(Fraction(size) * (1 if side == "buy" else -1) for _, size, side in rows)
    assert Fraction(figures["volume"]) == volume
    assert Fraction(figures["notional"]) == notional
    assert abs(Fraction(figures["vwap"]) - notional / volume) <= Fraction(1, 2 * 10**8)
    assert abs(Fraction(figures["imbalance"]) - signed / volume) <= Fraction(1, 2 * 10**8)
    assert Fraction(figures["buy_volume"]) + Fraction(figures["sell_volume"]) == volume
    assert Decimal(figures["low"]) == min(price for price, _, _ in rows)
    assert (figures["trades"], figures["first_trade_id"]) == (str(len(rows)), "0")
