"""The checkers, checked: each broken variant of the farm is caught; the farm as it is passes the same seeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.history import History
from tests.simulation.laws import Broken
from tests.simulation.mutants import MUTANTS
from tests.simulation.plans import plan

SEEDS_MAX = 60
FIRST_SEED = {  # where to begin to look; these need a rare history
    "lead_is_not_proven_again": 480,
    "nodes_trust_their_leases_too_long": 93,
    "exclusive_attempts_are_left_to_the_daemon": 93,
    "nobody_looks_after_a_replica_that_does_not_look": 93,
    "orders_are_obeyed_after_the_lease_is_over": 1_580,
    "exclusive_replicas_outlive_their_zygotes": 1_910,
    "silent_exclusive_work_goes_on_beside_hello": 360,
    "new_daemon_trusts_a_lease_it_never_saw": 23_200,
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str) -> None:
    first = FIRST_SEED.get(name, 0)
    for seed in range(first, first + SEEDS_MAX):
        with MUTANTS[name]():
            problem = History(plan(seed)).run().problem
        if problem is not None:
            assert isinstance(problem, Broken), f"not by a law: {problem!r}"
            assert History(plan(seed)).run().problem is None, "the farm as it is breaks it too"
            return
    pytest.fail(f"{name} was not caught by {SEEDS_MAX} histories from seed {first} on")


def test_the_documentation_names_every_mutant() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == set(MUTANTS)
