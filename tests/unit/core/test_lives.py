"""The tables of moves, and the documents that repeat them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.core.lives import (
    ENDED_REPLICA_STATES,
    FINAL_TASK_STATES,
    NODE_MOVES,
    REPLICA_MOVES,
    TASK_MOVES,
    IllegalMove,
    NodeState,
    ReplicaState,
    TaskState,
    move_node,
    move_replica,
    move_task,
)

ROOT = Path(__file__).parents[3]


def test_every_task_state_is_reached_and_only_final_ones_have_no_way_out() -> None:
    reached = set(TASK_MOVES.values()) | {TaskState.QUEUED}
    left = {state for state, _ in TASK_MOVES}
    assert reached == set(TaskState)
    assert set(TaskState) - left == FINAL_TASK_STATES


def test_every_replica_state_is_reached_and_only_ended_ones_have_no_way_out() -> None:
    reached = set(REPLICA_MOVES.values()) | {ReplicaState.PENDING}
    left = {state for state, _ in REPLICA_MOVES}
    assert reached == set(ReplicaState)
    assert set(ReplicaState) - left == ENDED_REPLICA_STATES


def test_a_node_can_always_come_back() -> None:
    assert all((state, "hello") in NODE_MOVES for state in NodeState)


def test_a_move_outside_the_tables_raises() -> None:
    with pytest.raises(IllegalMove, match="succeeded"):
        move_task(TaskState.SUCCEEDED, "retry")
    with pytest.raises(IllegalMove, match="lost"):
        move_node(NodeState.LOST, "beat")
    with pytest.raises(IllegalMove, match="stopped"):
        move_replica(ReplicaState.STOPPED, "ready")


def test_the_architecture_names_exactly_the_states_of_the_tables() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    lives = text.split("## Lives")[1].split("\n## ")[0]
    for row, states in (("node", NodeState), ("replica", ReplicaState), ("task", TaskState)):
        line = next(line for line in lives.splitlines() if line.startswith(f"| {row} |"))
        drawn = set(re.findall(r"[a-z]+", re.findall(r"`([^`]+)`", line)[0]))
        assert drawn == {state.value for state in states}, row
