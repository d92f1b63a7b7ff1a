"""Mutants of records: one kind of them is changed or removed, and nobody is told. See mutants.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from controller.core import parts
from controller.core.commands import CancelTask
from controller.core.model import Node, Task
from controller.core.parts import TABLES
from controller.core.records import Table
from controller.core.turn import Turn

RECORD_MUTANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {}


def _changes_forgotten(table: Table[Any]) -> Callable[[], AbstractContextManager[None]]:
    """A record is stored when it is new, and never again."""
    real = Turn.changed

    def mutant() -> Iterator[None]:
        known: set[Any] = set()

        def changed(self: Turn, thing: Any) -> None:
            key = table.key_of(thing) if type(thing) is table.kind else None
            if key not in known:
                real(self, thing)
            if key is not None:
                known.add(key)

        with patch.object(Turn, "changed", changed):
            yield

    return contextmanager(mutant)


def end_forgotten(table: Table[Any]) -> Callable[[], AbstractContextManager[None]]:
    """The row of a record stays when the record goes."""
    real = Turn.removed

    def removed(self: Turn, thing: Any) -> None:
        if type(thing) is not table.kind:
            real(self, thing)

    def mutant() -> Iterator[None]:
        with patch.object(Turn, "removed", removed):
            yield

    return contextmanager(mutant)


def _requeue_forgotten() -> Iterator[None]:
    """A task that is given back, with what it has cost, is not stored."""
    real = Turn.requeue

    def requeue(self: Turn, task: Task, *arguments: Any, **options: Any) -> None:
        real(self, task, *arguments, **options)
        self.out.changes.requeued_tasks[:] = [each for each in self.out.changes.requeued_tasks if each is not task]

    with patch.object(Turn, "requeue", requeue):
        yield


def _cancel_forgotten() -> Iterator[None]:
    """That a leased task is to be cancelled is not stored."""
    real = parts.HANDLERS[CancelTask]

    def cancel(turn: Turn, command: CancelTask) -> object:
        answer = real(turn, command)
        turn.out.changes.cancelling_tasks.clear()
        return answer

    with patch.dict(parts.HANDLERS, {CancelTask: cancel}):
        yield


RECORD_MUTANTS["changes_of_a_task_are_not_marked"] = contextmanager(_requeue_forgotten)
RECORD_MUTANTS["cancels_of_a_task_are_not_marked"] = contextmanager(_cancel_forgotten)
for _table in TABLES:
    RECORD_MUTANTS[f"changes_of_a_{_table.name}_are_not_marked"] = _changes_forgotten(_table)
    if _table.kind is not Node:  # no history strikes a node off: tests/unit/core/test_records.py does
        RECORD_MUTANTS[f"the_end_of_a_{_table.name}_is_not_marked"] = end_forgotten(_table)
