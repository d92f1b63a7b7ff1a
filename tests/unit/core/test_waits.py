"""Waits after a restart, on a wall clock that jumped meanwhile."""

from __future__ import annotations

import pytest

from controller.core.commands import StartDrain
from controller.core.lives import Outcome, ReplicaState
from controller.core.model import OPERATOR, NodeName
from tests.unit.core.farm import ECHO, LEASED, QUEUED, Farm

DAY_S = 86_400.0


@pytest.mark.parametrize("jump_s", [-DAY_S, -5.0, 0.0, 5.0, DAY_S])
def test_backoff_is_no_longer_than_its_policy_allows(jump_s: float) -> None:
    farm = Farm()
    farm.service(backoff_s=4.0, backoff_max_s=6.0)
    [task] = farm.submit()
    farm.end(task, Outcome.FAILED, "ValueError")
    assert task.state is QUEUED
    farm.restart(clock_jump_s=jump_s)
    farm.hello("n1", **farm.holding("n1"))
    farm.wait(6.25)
    assert farm.state.tasks[task.id].state is LEASED


@pytest.mark.parametrize("jump_s", [-DAY_S, 0.0])
def test_seat_waits_no_longer_than_its_longest_backoff(jump_s: float) -> None:
    farm = Farm()
    farm.service()
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "out_of_memory")
    farm.restart(clock_jump_s=jump_s)
    farm.hello("n1")
    farm.wait(60.25)
    assert [replica.state for replica in farm.replicas()] == [ReplicaState.STARTING]


def test_drain_is_forced_within_its_time_though_the_clock_went_back() -> None:
    farm = Farm()
    farm.service()
    farm.ask(StartDrain(NodeName("n1"), 20.0, actor=OPERATOR))
    farm.restart(clock_jump_s=-DAY_S)
    farm.hello("n1", **farm.holding("n1"))
    farm.wait(20.25)
    drain = farm.state.nodes[NodeName("n1")].drain
    assert drain is not None
    assert drain.is_forced


def test_rollout_is_judged_within_its_time_though_the_clock_went_back() -> None:
    farm = Farm()
    farm.service()
    farm.deploy(digest="sha256:2", healthy_deadline_s=10.0)
    farm.restart(clock_jump_s=-DAY_S)
    farm.hello("n1", replicas={1: ReplicaState.RUNNING, 2: ReplicaState.STARTING})
    farm.wait(10.25)
    rollout = farm.state.deployments[ECHO].rollout
    assert rollout is not None
    assert rollout.state == "reverted"
