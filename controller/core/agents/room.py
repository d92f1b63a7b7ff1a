"""Room for newcomers: where the farm is too full to seat a new version beside the old one, the old one stops first.

The rule of a takeover (`rollouts`) is that no replica retires before its successor runs, and it holds wherever there
is room for both. On a full farm the newcomer would wait without end. So a newcomer that placement has refused for
MAKE_ROOM_AFTER_S, and that would fit where its predecessor runs, gets that place: the predecessor finishes its
attempts and stops. No more seats than the surge are empty for that reason at once, so the price is a quarter of the
deployment, or its one replica, for as long as a replica takes to start. Only rollouts pay it: what a drain moves has
its predecessor's room nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.core.agents.placement import fits
from controller.core.agents.rollouts import occupants_of, retire, surge_of
from controller.core.agents.seats import offer
from controller.core.lives import ReplicaState
from controller.core.model import Deployment, DeploymentName, Replica, ReplicaId
from controller.core.turn import Turn

MAKE_ROOM_AFTER_S: Final = 3.0  # measured memory moves, others leave: room may come by itself
SERVING: Final = (ReplicaState.RUNNING, ReplicaState.UNHEALTHY)


def make_room(turn: Turn, refused: Iterable[ReplicaId]) -> None:
    """For each replica without a node: let the one it is to replace go first, if that helps."""
    waiting: dict[DeploymentName, list[Replica]] = {}
    for newcomer in (turn.state.replicas[replica_id] for replica_id in refused):
        if turn.now.mono - newcomer.not_before >= MAKE_ROOM_AFTER_S:
            waiting.setdefault(newcomer.deployment, []).append(newcomer)
    for name, newcomers in waiting.items():
        _make_room_in(turn, turn.state.deployments[name], newcomers)


def _make_room_in(turn: Turn, deployment: Deployment, newcomers: Iterable[Replica]) -> None:
    """Of one deployment, whose replicas are looked at once, however many wait."""
    serving = [
        replica for replica in occupants_of(turn, deployment) if replica.state in SERVING and not replica.is_retiring
    ]
    if all(replica.version == deployment.version for replica in serving):
        return  # they replace no other replica: they wait for room in the farm
    by_seat: dict[int, list[Replica]] = {}
    for replica in serving:
        by_seat.setdefault(replica.seat, []).append(replica)
    seats_left = surge_of(deployment) - _vacated(deployment, serving)
    for newcomer in newcomers:
        if seats_left <= 0:
            return
        for old in by_seat.get(newcomer.seat, ()):
            if old.version != newcomer.version and _would_fit(turn, deployment, old, newcomer):
                _give_way(turn, deployment, old, newcomer)
                seats_left -= 1
                break


def _would_fit(turn: Turn, deployment: Deployment, old: Replica, newcomer: Replica) -> bool:
    assert old.node is not None
    place = offer(turn.state, turn.state.nodes[old.node])
    place.give_back(deployment.versions[old.version].policy.resources, really_mib=old.private_mib)
    return fits(deployment.versions[newcomer.version].policy, place)


def _vacated(deployment: Deployment, serving: Iterable[Replica]) -> int:
    """How many seats are without a running replica because their old one gave way."""
    if deployment.rollout is None:
        return 0
    running = {replica.seat for replica in serving if replica.state is ReplicaState.RUNNING}
    return sum(seat not in running and seat < deployment.replicas_wanted for seat in deployment.rollout.vacated)


def _give_way(turn: Turn, deployment: Deployment, old: Replica, newcomer: Replica) -> None:
    if deployment.rollout is not None:
        deployment.rollout.vacated.append(old.seat)
        turn.changed(deployment)
    turn.tell(
        "replica.gave_way",
        f"{deployment.name}/{old.seat} stops on {old.node} before version {newcomer.version} runs: "
        "there is no room for both",
        severity="warning", node=old.node, deployment=deployment.name, replica=old.id, version=old.version,
    )  # fmt: skip
    retire(turn, [old])
