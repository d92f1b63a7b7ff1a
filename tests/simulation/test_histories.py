"""Seeded histories: everything that can break breaks, and every law holds. Failures print how to see them again."""

from __future__ import annotations

import os
import time

import pytest

from tests.simulation.history import History
from tests.simulation.mutants import MUTANTS
from tests.simulation.plans import plan
from tests.simulation.shrink import report, shrink

HISTORIES = 500
CHUNK = 50
LONG_S = 3_600.0
HISTORIES_PER_CPU_S_MIN = 2.0  # else the hour shows little; a calm 2.5 GHz core does about 15


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_every_law_holds_in_every_history(first: int) -> None:
    for seed in range(first, first + CHUNK):
        verdict = History(plan(seed)).run()
        if verdict.problem is not None:
            pytest.fail(report(verdict))


def test_same_seed_is_the_same_history() -> None:
    def run() -> tuple[object, ...]:
        history = History(plan(17))
        verdict = history.run()
        finished = sorted(
            (it.task.id, it.state, it.output, it.task.token, it.finished_at)
            for it in history.database.tables.finished.values()
        )
        return verdict.events, verdict.ended_s, finished

    assert run() == run()


def test_histories_are_not_empty() -> None:
    """Faults and work really happen: leases are lost, attempts repeated, leaders change, tasks end in every way."""
    ends, epochs, repeated, tasks = set(), 0, 0, 0
    for seed in range(40):
        history = History(plan(seed))
        tasks += history.run().tasks
        tables = history.database.tables
        ends |= {item.state.value for item in tables.finished.values()}
        ends |= {attempt.outcome for attempt in tables.attempts}
        epochs += tables.epoch - 1
        repeated += len(tables.attempts)
    assert ends >= {"succeeded", "failed", "cancelled", "dead", "interrupted", "lost", "timed_out"}
    assert epochs > 20
    assert repeated > 200
    assert tasks > 1_000


def test_failing_history_is_made_short_and_says_how_to_see_it_again() -> None:
    with MUTANTS["results_are_acknowledged_before_the_commit"]():
        verdict = next(it for it in (History(plan(seed)).run() for seed in range(20)) if it.problem is not None)
        short = shrink(verdict)
        text = report(verdict)
    assert len(short.plan.happenings) <= 3 < len(verdict.plan.happenings)
    assert "a result is acknowledged when it is stored" in text
    assert f"python -m tests.simulation --seed {verdict.plan.seed}" in text


@pytest.mark.long
@pytest.mark.timeout(LONG_S + 600)
def test_every_law_holds_for_an_hour() -> None:
    """New seeds each time; AGENTFARM_FIRST_SEED sets the first, AGENTFARM_SIMULATION_S another length."""
    first = int(os.environ.get("AGENTFARM_FIRST_SEED", time.time_ns() // 1_000_000_000 * 100_000))
    deadline = time.monotonic() + float(os.environ.get("AGENTFARM_SIMULATION_S", LONG_S))
    began_s, seed = time.process_time(), first
    while time.monotonic() < deadline:
        try:
            verdict = History(plan(seed)).run()
        except BaseException:  # this test's own deadline, in a history without an end
            print(f"in the history of: python -m tests.simulation --seed {seed}")
            raise
        if verdict.problem is not None:
            pytest.fail(report(verdict))
        seed += 1
    print(f"{seed - first} histories from seed {first} on")
    assert seed - first >= HISTORIES_PER_CPU_S_MIN * (time.process_time() - began_s)
