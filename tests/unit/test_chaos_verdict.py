"""The judge of the chaos run finds what must never be: each test gives it one thing that went wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.chaos import p99, plan_of
from benchmarks.faults import ALL
from benchmarks.load import Ended, Piece
from benchmarks.verdict import Verdict, judge

KEY = "chaos-1-0"
RUN = {"task": 7, "attempt": 1, "node": "node-1", "note": KEY, "run": "a"}
LINES = [{**RUN, "event": "began"}, {**RUN, "event": "ended"}]
ROW = Ended(7, "succeeded", 1, 99, "node-1", json.dumps(RUN).encode(), "noon")


def judged(
    *,
    lines: Sequence[Mapping[str, Any]] = LINES,
    rows: Sequence[Ended] = (ROW,),
    keys: Mapping[str, set[int]] | None = None,
    changed: Sequence[str] = (),
    piece: Piece | None = None,
) -> Verdict:
    ended: dict[int, list[Ended]] = {}
    for row in rows:
        ended.setdefault(row.task, []).append(row)
    pieces = [piece or Piece(KEY, 0.1, 0.0, ids={7})]
    return judge(pieces, lines, ended, {KEY: {7}} if keys is None else keys, changed)


def ran_again(**changes: Any) -> list[Mapping[str, Any]]:
    again = {**RUN, "run": "b", **changes}
    return [*LINES, {**again, "event": "began"}, {**again, "event": "ended"}]


def test_work_done_once_is_neither_lost_nor_doubled() -> None:
    verdict = judged()
    assert (verdict.lost, verdict.twice) == ([], [])
    assert verdict.pieces[0].executions == 1


def test_second_attempt_is_an_execution_and_no_fault() -> None:
    row = replace(
        ROW, attempt=2, node="node-2", output=json.dumps({**RUN, "attempt": 2, "node": "node-2", "run": "b"}).encode()
    )
    verdict = judged(lines=ran_again(attempt=2, node="node-2"), rows=[row])
    assert (verdict.lost, verdict.twice) == ([], [])
    assert verdict.pieces[0].executions == 2


def test_end_that_an_earlier_attempt_had_stored_in_its_last_checkpoint_is_the_end() -> None:
    """The second attempt found nothing left to do, and answered with it."""
    piece = Piece(KEY, 0.1, 0.0, ids={7}, agent="stepper")
    assert not judged(rows=[replace(ROW, attempt=2, node="node-2")], piece=piece).twice


def test_output_of_an_earlier_attempt_is_wrong_where_a_later_one_did_the_work() -> None:
    lines = ran_again(attempt=2, node="node-2")
    piece = Piece(KEY, 0.1, 0.0, ids={7}, agent="stepper")
    assert len(judged(lines=lines, rows=[replace(ROW, attempt=2, node="node-2")], piece=piece).twice) == 1


@pytest.mark.parametrize("state", ["dead", "failed", "cancelled"])
def test_acknowledged_task_that_ends_badly_is_lost(state: str) -> None:
    assert judged(rows=[replace(ROW, state=state, output=b"")]).lost


def test_acknowledged_task_that_never_ends_is_lost() -> None:
    assert judged(rows=[], lines=LINES[:1]).lost


def test_refused_submit_is_lost() -> None:
    assert judged(piece=Piece(KEY, 0.1, 0.0, refused="500 oops"), rows=[], lines=[], keys={}).lost


def test_submit_without_an_acknowledgement_promises_nothing() -> None:
    verdict = judged(piece=Piece(KEY, 0.1, 0.0), rows=[], lines=[], keys={})
    assert (verdict.lost, verdict.unanswered) == ([], 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": {KEY: {7, 8}}},
        {"lines": ran_again(task=8)},
        {"piece": Piece(KEY, 0.1, 0.0, ids={7, 8})},
        {"lines": ran_again()},
        {"rows": [ROW, replace(ROW, finished_at="midnight")]},
        {"rows": [replace(ROW, attempt=2)]},
        {"rows": [replace(ROW, node="node-2")]},
        {"rows": [replace(ROW, output=json.dumps({**RUN, "run": "nobody"}).encode())]},
        {"rows": [replace(ROW, output=json.dumps({**RUN, "note": "chaos-1-9"}).encode())]},
        {"changed": ["task 7 ended as …, and later as …"]},
    ],
    ids=["two tasks stored", "two tasks ran", "two ids answered", "one attempt ran twice", "two ends",
         "another's token", "another's node", "an output of no attempt", "another task's output", "an end that moved"],
)  # fmt: skip
def test_what_happened_twice_is_found(wrong: dict[str, Any]) -> None:
    assert judged(**wrong).twice


def test_equal_seeds_make_equal_plans() -> None:
    plan = plan_of(ALL, 2, random.Random(5))
    assert plan == plan_of(ALL, 2, random.Random(5))
    assert plan != plan_of(ALL, 2, random.Random(6))
    assert all(plan.count(fault) == 2 * fault.times for fault in ALL)


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in ALL}) == len({fault.words for fault in ALL}) == len(ALL)


def test_p99_of_one_value_is_that_value() -> None:
    assert p99([3.0]) == 3.0
    assert p99([*([0.0] * 99), 100.0]) == pytest.approx(1.0)
