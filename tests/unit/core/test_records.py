"""What is stored is declared once: the journals, the schema and the law go by the fields of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ARRAY, BigInteger, Boolean, DateTime, Integer, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB

from controller.core.commands import AddNode, ForgetNode, NewTask, StartDrain, SubmitTasks
from controller.core.model import OPERATOR, Drain, Node, NodeName, Rollout, Task, Token
from controller.core.parts import TABLE_OF, TABLES
from controller.core.records import MOMENT, NUMBER, TEXT, Column, columns_of, live, record, stored
from controller.journal import schema
from tests.simulation.laws import Broken, check_same
from tests.simulation.record_mutants import end_forgotten
from tests.unit.core.farm import ECHO, Farm

TYPES = {
    "text": Text, "number": (Integer, BigInteger, SmallInteger), "flag": Boolean, "time": DateTime, "texts": ARRAY,
    "json": JSONB, "bytes": LargeBinary,
}  # fmt: skip
RETIRED = {("node", "desired_generation")}
"""Columns that the release before reads, and this one neither writes nor reads."""


def test_field_that_says_neither_stored_nor_live_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Spare\.mute says neither"):

        @record
        class Spare:
            name: str = stored(TEXT)
            mute: int = 0

    with pytest.raises(TypeError, match=r"Other\.held is live and has no default"):

        @record
        class Other:
            held: int = live()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_schema_has_the_columns_of_the_records_and_no_other(table: Any) -> None:
    columns = schema.metadata.tables[table.name].columns
    assert {(table.name, name) for name in columns.keys()} - RETIRED == {(table.name, it.name) for it in table.columns}  # noqa: SIM118
    for column in table.columns:
        assert isinstance(columns[column.name].type, TYPES[column.form.type]), column
    assert [column.name for column in schema.metadata.tables[table.name].primary_key] == list(table.key)


def test_schema_has_the_columns_of_tasks_and_their_leases() -> None:
    for column in columns_of(Task):
        assert column.name in schema.metadata.tables[column.table or "task"].columns, column


# ------------------------------------------------------------------ the law


@pytest.fixture
def farm() -> Farm:
    """One of everything: a node that is drained, a product, a rollout, tasks with and without a lease."""
    farm = Farm()
    farm.feeding("n1")
    farm.feed("BTC-USD")
    farm.deploy()
    farm.run_all()
    farm.deploy(digest="sha256:2")
    farm.turn(AddNode(NodeName("n2"), actor=OPERATOR))
    farm.ask(SubmitTasks((NewTask(ECHO, b"1"), NewTask(ECHO, b"2")), actor=OPERATOR))
    farm.ask(StartDrain(NodeName("n2"), 60.0, actor=OPERATOR))
    return farm


def things(state: Any) -> Iterator[tuple[Any, tuple[Column, ...]]]:
    """Every record of a farm, those inside others too."""
    for table in TABLES:
        for thing in table.things(state):
            yield thing, table.columns
            for column in table.columns:
                if column.form.columns and getattr(thing, column.field) is not None:
                    yield getattr(thing, column.field), column.form.columns
    for task in state.tasks.values():
        yield task, tuple(it for it in columns_of(Task) if it.table is None or task.token is not None)


def test_law_compares_every_stored_field(farm: Farm) -> None:
    loaded = farm.journal.load(farm.limits, farm.now)
    check_same(farm.state, loaded, farm.now)
    seen = set()
    for thing, columns in things(loaded):
        for column in columns:
            before = getattr(thing, column.field)
            if isinstance(thing, Task) and thing.token is not None and column.form is MOMENT:
                continue  # whoever holds a lease waits for nothing
            if column.form.columns and before is None:
                continue
            setattr(thing, column.field, _other(column, before))
            with pytest.raises(Broken):
                check_same(farm.state, loaded, farm.now)
            setattr(thing, column.field, before)
            seen.add((type(thing), column.field))
    kinds = [*(table.kind for table in TABLES), Task, Drain, Rollout]
    assert seen == {(kind, column.field) for kind in kinds for column in columns_of(kind)}


def test_node_that_is_struck_off_but_not_marked_is_missed() -> None:
    farm, name = Farm(), NodeName("n1")
    farm.turn(AddNode(name, actor=OPERATOR))
    with end_forgotten(TABLE_OF[Node])(), pytest.raises(Broken):
        farm.ask(ForgetNode(name, actor=OPERATOR))


def _other(column: Column, value: Any) -> Any:
    if column.form.columns:
        return None
    if column.form.type == "time":
        return (value or 2_000.0) + 1_000.0
    if column.form is NUMBER:
        return Token((value or 0) + 1)
    if column.form.type == "bytes":
        return b"another"
    return {"flag": not value, "text": "another", "texts": {"another"}}.get(column.form.type, "another")
