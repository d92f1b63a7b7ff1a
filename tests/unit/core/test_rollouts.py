"""Stories of deployments: rolled out seat by seat, taken back, scaled, removed."""

from __future__ import annotations

import pytest

from agentfarm.errors import Conflict, InvalidRequest, NotFound
from controller.core.commands import Remove, Rollback, Scale, StartDrain
from controller.core.lives import ReplicaState
from controller.core.model import OPERATOR, Limits, NodeName, Rollout
from tests.unit.core.farm import ECHO, LEASED, Farm, big


@pytest.fixture
def farm() -> Farm:
    return Farm()


def rollout(farm: Farm) -> Rollout:
    found = farm.state.deployments[ECHO].rollout
    assert found is not None
    return found


def newcomers(farm: Farm, version: int) -> list[int]:
    return [replica.seat for replica in farm.replicas() if replica.version == version]


def test_first_deploy_is_complete_when_every_seat_runs(farm: Farm) -> None:
    farm.node("n1")
    farm.deploy(replicas=2)
    assert rollout(farm).state == "progressing"
    first, second = farm.replicas()
    farm.report(first, ReplicaState.RUNNING)
    assert rollout(farm).state == "progressing"
    farm.report(second, ReplicaState.RUNNING)
    assert rollout(farm).state == "complete"
    assert [event.data["version"] for event in farm.told("deployment.complete")] == [1]


def test_new_version_takes_over_seat_by_seat(farm: Farm) -> None:
    farm.service(replicas=3)
    farm.deploy(replicas=3, digest="sha256:2")
    assert newcomers(farm, 2) == [0], "a quarter of the seats at once, at least one"
    old = farm.replicas()[0]
    assert old.state is ReplicaState.RUNNING, "it serves until its successor runs"
    farm.report(farm.replicas()[1], ReplicaState.RUNNING)
    assert old.state is ReplicaState.STOPPING
    assert newcomers(farm, 2) == [0, 1]
    farm.run_all()
    assert newcomers(farm, 2) == [0, 1, 2]
    assert newcomers(farm, 1) == []
    assert rollout(farm).state == "complete"


def test_surge_counts_takeovers_wherever_their_seats_are(farm: Farm) -> None:
    farm.service("n1", "n2", "n3", "n4", replicas=4)
    homes = {replica.seat: replica.node for replica in farm.replicas()}
    farm.ask(StartDrain(NodeName(str(homes[3])), 60.0, actor=OPERATOR))
    farm.ask(StartDrain(NodeName(str(homes[1])), 60.0, actor=OPERATOR))
    starting = [replica.seat for replica in farm.replicas() if replica.state is ReplicaState.STARTING]
    assert starting == [3], "one of four at once"


def test_same_version_again_changes_nothing(farm: Farm) -> None:
    farm.service(replicas=1)
    generation = farm.state.deployments[ECHO].generation
    farm.deploy(replicas=1)
    assert farm.state.deployments[ECHO].generation == generation
    assert not farm.out.effects


@pytest.mark.parametrize("reason", ["import_failed", "environment_failed", "bundle_failed", "crash_loop"])
def test_version_that_cannot_run_is_taken_back_and_nobody_noticed(farm: Farm, reason: str) -> None:
    farm.service("n1", replicas=2)
    before = farm.replicas()
    [task] = farm.submit()
    farm.deploy(replicas=2, digest="sha256:2")
    [new] = [replica for replica in farm.replicas() if replica.version == 2]
    farm.report(new, ReplicaState.FAILED, reason, "Traceback …")
    it = rollout(farm)
    assert (it.state, it.reason, it.detail) == ("reverted", reason, "Traceback …")
    assert farm.state.deployments[ECHO].version == 1
    assert farm.replicas() == before
    assert all(replica.state is ReplicaState.RUNNING and not replica.is_retiring for replica in before)
    assert task.state is LEASED


def test_version_that_never_gets_ready_is_taken_back_at_its_deadline(farm: Farm) -> None:
    farm.service("n1", replicas=1)
    farm.deploy(digest="sha256:2", healthy_deadline_s=30.0)
    farm.wait(29)
    assert rollout(farm).state == "progressing"
    farm.wait(2)
    assert (rollout(farm).state, rollout(farm).reason) == ("reverted", "not_healthy_in_time")
    farm.run_all()
    assert newcomers(farm, 2) == []


def test_each_newcomer_has_the_whole_time_from_its_placement(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    farm.deploy(resources=big(600))
    farm.run_all()
    farm.deploy(digest="sha256:2", resources=big(1100), healthy_deadline_s=30.0)
    assert farm.replicas()[1].state is ReplicaState.PENDING
    farm.wait(29)
    farm.node("n2", memory_mib=2000)
    assert farm.replicas()[1].state is ReplicaState.STARTING
    farm.wait(5)
    assert rollout(farm).state == "progressing", "it was placed five seconds ago"
    farm.wait(26)
    assert rollout(farm).state == "reverted"


def test_rollout_that_waits_for_room_is_not_taken_back(farm: Farm) -> None:
    farm.node("n1", memory_mib=1000)
    farm.deploy(resources=big(600))
    farm.run_all()
    farm.deploy(digest="sha256:2", resources=big(1100), healthy_deadline_s=5.0)
    farm.wait(20)
    assert rollout(farm).state == "progressing"
    assert farm.replicas()[0].state is ReplicaState.RUNNING, "its leaving would not help"


def test_newcomer_on_a_node_that_nobody_hears_is_not_blamed(farm: Farm) -> None:
    farm.service("n1", replicas=1)
    farm.deploy(digest="sha256:2", healthy_deadline_s=10.0)
    farm.wait(9)
    farm.restart()
    farm.wait(3)
    assert rollout(farm).state == "progressing"
    farm.hello("n1", replicas={1: ReplicaState.RUNNING, 2: ReplicaState.RUNNING})
    assert rollout(farm).state == "complete"


def test_half_done_rollout_is_taken_back_whole(farm: Farm) -> None:
    farm.service(replicas=2)
    farm.deploy(replicas=2, digest="sha256:2")
    farm.report(next(r for r in farm.replicas() if r.version == 2), ReplicaState.RUNNING)
    second = next(r for r in farm.replicas() if r.version == 2 and r.seat == 1)
    farm.report(second, ReplicaState.FAILED, "crash_loop")
    assert rollout(farm).state == "reverted"
    farm.run_all()
    assert [(r.seat, r.version) for r in farm.replicas()] == [(0, 1), (1, 1)]


def test_first_version_that_cannot_run_halts_its_deployment(farm: Farm) -> None:
    farm.node("n1")
    deployment = farm.deploy(replicas=2)
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed", "Traceback …")
    assert deployment.is_halted
    assert rollout(farm).state == "failed"
    farm.run_all()
    farm.wait(90)
    assert farm.replicas() == [], "nothing is placed until somebody acts"


def test_halted_deployment_goes_on_with_the_next_deploy(farm: Farm) -> None:
    farm.node("n1")
    deployment = farm.deploy(replicas=1)
    [task] = farm.submit()
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed")
    farm.deploy(replicas=1, digest="sha256:2")
    assert not deployment.is_halted
    farm.run_all()
    assert rollout(farm).state == "complete"
    assert task.state is LEASED


def test_halted_deployment_is_tried_again_by_the_same_deploy(farm: Farm) -> None:
    farm.node("n1")
    deployment = farm.deploy(replicas=1)
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed")
    farm.deploy(replicas=1)
    farm.run_all()
    assert not deployment.is_halted
    assert (deployment.version, rollout(farm).state) == (1, "complete")


def test_halted_deployment_is_tried_again_by_a_scale_and_says_so(farm: Farm) -> None:
    farm.node("n1")
    deployment = farm.deploy(replicas=1)
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed", "Traceback …")
    farm.ask(Scale(ECHO, 2, actor=OPERATOR))
    assert not deployment.is_halted
    assert (rollout(farm).state, rollout(farm).reason) == ("progressing", "")
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed", "again")
    assert deployment.is_halted
    assert rollout(farm).state == "failed"
    farm.ask(Scale(ECHO, 1, actor=OPERATOR))
    farm.run_all()
    assert (deployment.version, rollout(farm).state) == (1, "complete")


def test_scale_to_nothing_ends_a_halt_as_well(farm: Farm) -> None:
    farm.node("n1")
    deployment = farm.deploy(replicas=1)
    farm.report(farm.replicas()[0], ReplicaState.FAILED, "import_failed")
    farm.ask(Scale(ECHO, 0, actor=OPERATOR))
    farm.run_all()
    assert not deployment.is_halted
    assert rollout(farm).state == "complete"


def test_second_bad_version_falls_back_to_the_one_that_ran(farm: Farm) -> None:
    farm.service(replicas=1)
    farm.deploy(digest="sha256:2")
    farm.deploy(digest="sha256:3")
    for version in (2, 3):
        for replica in farm.replicas():
            if replica.version == version and replica.state is ReplicaState.STARTING:
                farm.report(replica, ReplicaState.FAILED, "import_failed")
    assert farm.state.deployments[ECHO].version == 1
    farm.run_all()
    assert [(r.version, r.state) for r in farm.replicas()] == [(1, ReplicaState.RUNNING)]


def test_a_version_that_ran_is_still_known_to_have_run_after_a_restart(farm: Farm) -> None:
    farm.service(replicas=1)
    farm.restart()
    farm.hello("n1", **farm.holding("n1"))
    farm.deploy(digest="sha256:2")
    assert rollout(farm).from_version == 1


def test_replica_that_waits_for_a_node_gives_way_to_the_new_version(farm: Farm) -> None:
    """It serves nobody; were it placed now, it would only take room from its successor."""
    farm.node("n1", memory_mib=500)
    farm.deploy(resources=big(600))
    farm.deploy(digest="sha256:2", resources=big(400))
    assert [(r.version, r.state) for r in farm.replicas()] == [(2, ReplicaState.STARTING)]


def test_replica_of_a_version_that_never_ran_gives_way_to_the_new_version(farm: Farm) -> None:
    """It still starts, perhaps for ever; its room may be all there is."""
    farm.node("n1", memory_mib=500)
    farm.deploy(resources=big(400))
    farm.deploy(digest="sha256:2", resources=big(400))
    farm.run_all()
    assert [(r.version, r.state) for r in farm.replicas()] == [(2, ReplicaState.RUNNING)]


def test_retired_newcomer_that_fails_blames_nobody(farm: Farm) -> None:
    farm.service(replicas=2)
    farm.deploy(replicas=2, digest="sha256:2")
    new = next(r for r in farm.replicas() if r.version == 2)
    farm.ask(Scale(ECHO, 0, actor=OPERATOR))
    farm.report(new, ReplicaState.FAILED, "crash_loop")
    assert rollout(farm).state == "complete", "nothing is wanted, so all of it runs"
    assert farm.state.deployments[ECHO].seat_failures == {}


# ------------------------------------------------------------------ rollback


def test_rollback_goes_to_the_newest_earlier_version_that_ran(farm: Farm) -> None:
    farm.service(replicas=1)
    farm.deploy(digest="sha256:2")
    farm.report(next(r for r in farm.replicas() if r.version == 2), ReplicaState.FAILED, "import_failed")
    farm.deploy(digest="sha256:3")
    farm.run_all()
    answer = farm.ask(Rollback(ECHO, actor=OPERATOR))
    assert (answer.version, answer.is_changed) == (1, True)
    farm.run_all()
    assert newcomers(farm, 1) == [0]
    assert rollout(farm).state == "complete"


def test_rollback_without_an_earlier_version_is_refused(farm: Farm) -> None:
    farm.service()
    with pytest.raises(Conflict, match="no earlier version"):
        farm.ask(Rollback(ECHO, actor=OPERATOR))
    with pytest.raises(NotFound, match="no version 7"):
        farm.ask(Rollback(ECHO, 7, actor=OPERATOR))
    assert farm.ask(Rollback(ECHO, 1, actor=OPERATOR)).is_changed is False


# ------------------------------------------------------------------ scale and remove


def test_scale_up_and_down(farm: Farm) -> None:
    farm.service(replicas=1)
    farm.ask(Scale(ECHO, 4, actor=OPERATOR))
    farm.run_all()
    assert [r.seat for r in farm.replicas()] == [0, 1, 2, 3]
    farm.ask(Scale(ECHO, 2, actor=OPERATOR))
    farm.run_all()
    assert [r.seat for r in farm.replicas()] == [0, 1]


def test_scaled_down_replica_finishes_its_work_first(farm: Farm) -> None:
    farm.service("n1", replicas=2)
    tasks = farm.submit(2)
    farm.ask(Scale(ECHO, 1, actor=OPERATOR))
    retired = farm.replicas()[1]
    held = next(task for task in tasks if task.replica == retired.id)
    farm.run_all()
    assert held.state is LEASED
    farm.end(held)
    farm.run_all()
    assert len(farm.replicas()) == 1


def test_stale_generation_is_refused(farm: Farm) -> None:
    deployment = farm.service()
    farm.ask(Scale(ECHO, 2, if_generation=deployment.generation, actor=OPERATOR))
    with pytest.raises(Conflict, match="somebody changed it"):
        farm.ask(Scale(ECHO, 3, if_generation=deployment.generation - 1, actor=OPERATOR))


def test_impossible_counts_are_refused(farm: Farm) -> None:
    farm.service()
    with pytest.raises(InvalidRequest):
        farm.ask(Scale(ECHO, -1, actor=OPERATOR))
    with pytest.raises(InvalidRequest):
        farm.ask(Scale(ECHO, 10_001, actor=OPERATOR))


def test_removed_deployment_is_forgotten_when_its_last_replica_is_gone(farm: Farm) -> None:
    farm.service(replicas=2)
    farm.ask(Remove(ECHO, actor=OPERATOR))
    assert ECHO in farm.state.deployments
    with pytest.raises(Conflict, match="being removed"):
        farm.deploy()
    farm.run_all()
    assert ECHO not in farm.state.deployments
    farm.service("n2")
    assert farm.state.deployments[ECHO].version == 1


def test_seats_lost_with_their_node_are_taken_elsewhere(farm: Farm) -> None:
    farm = Farm(Limits())
    farm.service("n1", "n2", replicas=2)
    farm.silent.add("n1")
    farm.wait(9)
    farm.run_all()
    assert [replica.node for replica in farm.replicas()] == ["n2", "n2"]
