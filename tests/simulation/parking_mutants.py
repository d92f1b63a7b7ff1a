"""Mutants of recall: see mutants.py, which takes them into its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from controller.core import decide
from controller.core.model import Deployment, FarmState, Replica
from controller.core.tasks import dispatch
from nodeagent.runner.replica import ledger
from nodeagent.runner.replica.ledger import Ledger

PARKING_MUTANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {}


def mutant(make: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Register a mutant under its name."""
    made = PARKING_MUTANTS[make.__name__] = contextmanager(make)
    return made


@mutant
def what_waits_behind_long_work_is_never_recalled() -> Iterator[None]:
    with patch.object(decide, "recall_parked", lambda turn: None):
        yield


@mutant
def begun_work_is_given_back() -> Iterator[None]:
    """The replica does not look whether it has begun what it is asked for, and goes on with it."""

    def give_back(self: Ledger, tokens: Iterable[int]) -> list[bytes]:
        waiting = [token for token in tokens if token in self._held]
        given = [ledger._given_back(self._held.pop(token), token) for token in waiting]
        self._ended.update(zip(waiting, given, strict=True))
        return given

    with patch.object(Ledger, "give_back", give_back):
        yield


@mutant
def a_replica_that_stands_still_seems_quick() -> Iterator[None]:
    """The estimate does not grow with the age of what runs: what was given back is parked at the same place again."""

    def room_at(state: FarmState, deployment: Deployment, replica: Replica, mono: float) -> int:
        return dispatch.window(state.limits, deployment, deployment.versions[replica.version].policy.concurrency)

    with patch.object(dispatch, "room_at", room_at):
        yield
