"""The checkers, checked: each broken variant of the farm is caught; the farm as it is passes the same seeds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.history import History
from tests.simulation.laws import Broken
from tests.simulation.mutants import MUTANTS
from tests.simulation.plans import plan
from tests.unit import test_turns as turns_stories
from tests.unit.node import test_session as node_stories

SEEDS_MAX = 60
FIRST_SEED = {  # where to begin to look; these need a rare history
    "cancels_of_a_task_are_not_marked": 60,
    "nodes_trust_their_leases_too_long": 93,
    "exclusive_attempts_are_left_to_the_daemon": 93,
    "nobody_looks_after_a_replica_that_does_not_look": 93,
    "orders_are_obeyed_after_the_lease_is_over": 1_580,
    "exclusive_replicas_outlive_their_zygotes": 1_910,
    "silent_exclusive_work_goes_on_beside_hello": 360,
    "begun_work_is_given_back": 581,
}

TOLD_BY_A_STORY: dict[str, Callable[[], None]] = {
    "lead_is_not_proven_again": lambda: turns_stories.prove_the_lead(turns_stories.led_stage()),
    "new_daemon_trusts_a_lease_it_never_saw": lambda: node_stories.speak_of_no_lease(node_stories.Node()),
}
"""Mutants that so few histories show that a seed is luck, each with the unit test's story that must fail under it."""

PRODUCT = ("agentfarm.", "controller.", "nodeagent.")
Binding = tuple[str, str, object]


def bindings() -> dict[Binding, object]:
    """What each name of the farm's modules stands for: in a module, in a class, in a table."""
    bound: dict[Binding, object] = {}
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith((*PRODUCT, "tests.simulation.")):
            continue
        for name, value in list(vars(module).items()):
            bound[module_name, name, None] = value
            is_own_class = isinstance(value, type) and value.__module__ == module_name
            inner = vars(value) if is_own_class else value if isinstance(value, dict) else {}
            bound |= {(module_name, name, key): item for key, item in inner.items()}
    return bound


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_breaks_the_product_and_not_the_simulator(name: str) -> None:
    before = bindings()
    with MUTANTS[name]():
        during = bindings()
    broken = {where[0] for where, value in during.items() if before.get(where) is not value}
    doubles = {module for module in broken if not module.startswith(PRODUCT)}
    assert broken, "it breaks nothing that was found"
    assert not doubles


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str) -> None:
    if name in TOLD_BY_A_STORY:
        TOLD_BY_A_STORY[name]()
        with MUTANTS[name](), pytest.raises(AssertionError):
            TOLD_BY_A_STORY[name]()
        return
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
