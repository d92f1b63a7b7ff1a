"""Stories of rollouts on a farm that is full: the old replica of a seat makes room for the new one."""

from __future__ import annotations

import pytest

from controller.core.agents.room import MAKE_ROOM_AFTER_S
from controller.core.commands import StartDrain
from controller.core.lives import ReplicaState
from controller.core.model import OPERATOR, NodeName
from tests.unit.core.farm import ECHO, LEASED, Farm, big

SOON_S = MAKE_ROOM_AFTER_S + 1.5  # and the next look for room


@pytest.fixture
def farm() -> Farm:
    """Four nodes, each full with one replica of version 1."""
    farm = Farm()
    for number in range(4):
        farm.node(f"n{number}", memory_mib=1000)
    farm.deploy(replicas=4, resources=big(600))
    farm.run_all()
    return farm


def running(farm: Farm, version: int) -> list[int]:
    return [r.seat for r in farm.replicas() if r.version == version and r.state is ReplicaState.RUNNING]


def state_of_rollout(farm: Farm) -> str:
    rollout = farm.state.deployments[ECHO].rollout
    assert rollout is not None
    return rollout.state


def test_rollout_on_a_full_farm_goes_through(farm: Farm) -> None:
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    for _ in range(4):
        farm.wait(SOON_S)
        farm.run_all()
    assert running(farm, 2) == [0, 1, 2, 3]
    assert state_of_rollout(farm) == "complete"
    assert len(farm.told("replica.gave_way")) == 4


def test_nobody_gives_way_at_once(farm: Farm) -> None:
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    farm.wait(MAKE_ROOM_AFTER_S - 0.5)
    assert running(farm, 1) == [0, 1, 2, 3]


def test_no_more_seats_than_the_surge_are_without_a_server(farm: Farm) -> None:
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    farm.wait(SOON_S * 3)
    assert running(farm, 1) == [1, 2, 3], "its node has not said yet that the first is gone"
    farm.report(farm.replicas()[0], ReplicaState.STOPPED)
    farm.wait(SOON_S * 3)
    assert running(farm, 1) == [1, 2, 3], "the first newcomer does not run yet"
    farm.restart()
    for number in range(4):
        farm.hello(f"n{number}", memory_mib=1000, **farm.holding(f"n{number}"))
    farm.wait(SOON_S * 3)
    assert running(farm, 1) == [1, 2, 3], "nor does another controller forget that"
    farm.run_all()
    farm.wait(SOON_S)
    assert running(farm, 2) == [0]
    assert running(farm, 1) == [2, 3]


def test_what_gives_way_finishes_its_attempt(farm: Farm) -> None:
    [task] = farm.submit()
    assert task.state is LEASED
    farm.start(task)
    holder = task.replica
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    for _ in range(8):
        farm.wait(SOON_S)
        farm.run_all()
    assert holder in farm.state.replicas
    assert task.attempt == 1
    farm.end(task)
    for _ in range(4):
        farm.wait(SOON_S)
        farm.run_all()
    assert running(farm, 2) == [0, 1, 2, 3]


def test_version_that_cannot_run_gives_its_room_back(farm: Farm) -> None:
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    farm.wait(SOON_S)
    farm.report(farm.replicas()[0], ReplicaState.STOPPED)
    newcomer = next(r for r in farm.replicas() if r.version == 2)
    farm.wait(1.5)
    farm.report(newcomer, ReplicaState.FAILED, "import_failed", "Traceback …")
    assert state_of_rollout(farm) == "reverted"
    farm.run_all()
    assert running(farm, 1) == [0, 1, 2, 3]


def test_half_done_rollout_is_taken_back_on_a_full_farm_too(farm: Farm) -> None:
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    farm.wait(SOON_S)
    farm.run_all()
    assert running(farm, 2) == [0]
    farm.wait(SOON_S)
    farm.report(farm.replicas()[1], ReplicaState.STOPPED)
    second = next(r for r in farm.replicas() if r.version == 2 and r.seat == 1)
    farm.wait(1.5)
    farm.report(second, ReplicaState.FAILED, "crash_loop")
    for _ in range(3):
        farm.wait(SOON_S)
        farm.run_all()
    assert running(farm, 1) == [0, 1, 2, 3]


def test_drained_replica_does_not_stop_before_its_successor_runs(farm: Farm) -> None:
    farm.ask(StartDrain(NodeName("n0"), 60.0, actor=OPERATOR))
    farm.wait(SOON_S * 2)
    assert running(farm, 1) == [0, 1, 2, 3], "its room is of no use to anybody"


def test_replica_beside_which_there_is_room_stays(farm: Farm) -> None:
    farm.node("n9", memory_mib=1000)
    farm.deploy(replicas=4, digest="sha256:2", resources=big(600))
    farm.wait(SOON_S * 3)
    assert running(farm, 1) == [0, 1, 2, 3]
    farm.run_all()
    assert running(farm, 2)
    assert not [event for event in farm.told("replica.gave_way") if event.data["version"] != 1]
