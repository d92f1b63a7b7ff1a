"""What counts as a farm that works, what is submitted when, and which examples are deployed."""

from __future__ import annotations

from typing import Any

import pytest

from farmctl.dev.agents import should_deploy
from farmctl.dev.once.checks import (
    answers_given,
    brief_is_consistent,
    briefs_of_trades,
    figure_problems,
    tasks_succeeded,
)
from farmctl.dev.run import RowRate
from farmctl.dev.snapshot import Glimpse
from farmctl.dev.workload import BRIEF_AGENT, BRIEF_EVERY_S, QUESTION_AGENT, QUESTION_EVERY_S, Rhythm, brief_text

GOOD = {"vwap": "100.5", "low": "100", "high": "101", "volume": "2", "trades": "3", "imbalance": "-0.5",
        "realised_volatility": "0.01"}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"vwap": "101.1"}, "VWAP 101.1 is not between"),
        ({"vwap": "99.9"}, "VWAP 99.9 is not between"),
        ({"vwap": "nan"}, "vwap is nan"),
        ({"low": None}, "low is missing"),
        ({"trades": "0"}, "nothing was traded"),
        ({"volume": "0"}, "nothing was traded"),
        ({"imbalance": "1.2"}, "imbalance 1.2"),
        ({"realised_volatility": "-1"}, "volatility -1"),
    ],
)
def test_figures_that_do_not_fit_are_named(change: dict[str, Any], complaint: str | None) -> None:
    problems = figure_problems({**GOOD, **change})
    assert problems == [] if complaint is None else complaint in problems[0]


def task(state: str = "succeeded", output: object = None, **more: object) -> dict[str, Any]:
    return {"id": 7, "agent": BRIEF_AGENT, "state": state, "output": output, "error": None, **more}


def test_a_brief_of_a_product_without_trades_is_right_and_one_without_figures_is_not() -> None:
    silent = {"product": "NU-GBP", "trades": 0, "figures": {}, "brief": "There are none."}
    assert brief_is_consistent(task(output=silent)).is_ok
    assert not brief_is_consistent(task(output={**silent, "trades": 3})).is_ok
    assert brief_is_consistent(task(output={"product": "BTC-USD", "trades": 3, "figures": GOOD})).is_ok
    assert not briefs_of_trades([task(output=silent)]).is_ok


def test_a_task_that_failed_is_named_with_its_error() -> None:
    failed = task("dead", error={"type": "ValueError", "message": "no"})
    check = tasks_succeeded("briefs succeed", [task(), failed], 2)
    assert not check.is_ok
    assert "task 7 is dead: ValueError no" in check.detail
    assert not tasks_succeeded("briefs succeed", [task()], 2).is_ok, "too few is not enough"
    assert not answers_given([task(output={"answer": " "})]).is_ok


def test_load_keeps_its_rhythm_and_makes_up_for_nothing() -> None:
    rhythm = Rhythm([QUESTION_AGENT, BRIEF_AGENT], ["BTC-USD", "ETH-USD"])
    assert [due.agent for due in rhythm.due(0.0, has_trades=False)] == [QUESTION_AGENT]
    assert [due.agent for due in rhythm.due(0.1, has_trades=True)] == [BRIEF_AGENT]
    assert rhythm.due(0.2, has_trades=True) == []
    late = rhythm.due(100 * BRIEF_EVERY_S, has_trades=True)
    assert [due.agent for due in late] == [QUESTION_AGENT, BRIEF_AGENT]
    assert late[1].input == {"product": "ETH-USD"}
    assert rhythm.due(100 * BRIEF_EVERY_S + QUESTION_EVERY_S / 2, has_trades=True) == []


def test_agents_that_are_not_there_get_no_load() -> None:
    assert Rhythm([], ["BTC-USD"]).due(0.0, has_trades=True) == []


@pytest.mark.parametrize(
    ("current", "ours", "is_once", "expected"),
    [
        (None, None, False, True),  # first start
        ("new", "new", False, False),  # nothing changed
        ("old", "old", False, True),  # the example changed
        ("theirs", "old", False, False),  # a person deployed another under its name
        (None, "old", False, False),  # a person removed it
        (None, "old", True, True),  # ... but everything is to be checked
    ],
)
def test_what_a_person_did_to_an_example_stays(
    current: str | None, ours: str | None, is_once: bool, expected: bool
) -> None:
    assert should_deploy("new", current, ours, is_once=is_once) is expected


def test_rate_is_over_the_last_seconds_and_begins_again_with_the_feed() -> None:
    rate = RowRate()

    def seen(rows: int) -> Glimpse:
        return Glimpse({"market": {"rows": rows}})

    assert rate.of(seen(0), 0.0) == 0.0
    assert rate.of(seen(100), 1.0) == 100.0
    assert rate.of(seen(1100), 11.0) == 100.0
    assert rate.of(seen(5), 12.0) == 0.0
    assert rate.of(None, 13.0) == 0.0


def test_a_brief_is_shown_in_one_line() -> None:
    assert brief_text({"brief": "one\n two"}) == "one two"
    assert brief_text(None) == ""
