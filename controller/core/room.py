"""Room for newcomers: where the farm is too full to seat a new version beside the old one, the old one stops first.

The rule of a takeover (`rollouts`) is that nobody retires before its successor runs, and it holds wherever there is
room for both. On a full farm it would hold for ever. So a newcomer that placement has refused for MAKE_ROOM_AFTER_S,
and that would fit where its predecessor runs, gets that place: the predecessor finishes its attempts and stops. No more
seats than the surge are empty for that reason at once, so the price is a quarter of the deployment, or its one replica,
for as long as a replica takes to start. Only rollouts pay it: what a drain moves has its predecessor's room nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.core.lives import ReplicaState
from controller.core.model import Deployment, Replica, ReplicaId
from controller.core.placement import fits
from controller.core.rollouts import retire, surge_of
from controller.core.seating import offer
from controller.core.turn import Turn

MAKE_ROOM_AFTER_S: Final = 3.0  # measured memory moves, others leave: room may come by itself
SERVING: Final = (ReplicaState.RUNNING, ReplicaState.UNHEALTHY)


def make_room(turn: Turn, refused: Iterable[ReplicaId]) -> None:
    """For each replica that found no node: let the one it is to replace go first, if that helps."""
    for replica_id in refused:
        newcomer = turn.state.replicas[replica_id]
        if turn.now.mono - newcomer.not_before < MAKE_ROOM_AFTER_S:
            continue
        deployment = turn.state.deployments[newcomer.deployment]
        old = _in_its_way(turn, deployment, newcomer)
        if old is not None and len(_vacated(turn, deployment)) < surge_of(deployment):
            _give_way(turn, deployment, old, newcomer)


def _in_its_way(turn: Turn, deployment: Deployment, newcomer: Replica) -> Replica | None:
    """The seat's occupant of another version whose leaving would let the newcomer in."""
    for replica_id in sorted(deployment.replicas):
        old = turn.state.replicas[replica_id]
        if (
            old.seat == newcomer.seat
            and old.version != newcomer.version
            and old.state in SERVING
            and not old.is_retiring
            and _would_fit(turn, deployment, old, newcomer)
        ):
            return old
    return None


def _would_fit(turn: Turn, deployment: Deployment, old: Replica, newcomer: Replica) -> bool:
    assert old.node is not None
    place = offer(turn.state, turn.state.nodes[old.node])
    place.give_back(deployment.versions[old.version].policy.resources, really_mib=old.private_mib)
    return fits(deployment.versions[newcomer.version].policy, place)


def _vacated(turn: Turn, deployment: Deployment) -> list[int]:
    """Seats whose old occupant gave way and whose new one does not run yet."""
    rollout = deployment.rollout
    if rollout is None:
        return []
    running = {
        replica.seat
        for replica in (turn.state.replicas[replica_id] for replica_id in deployment.replicas)
        if replica.state is ReplicaState.RUNNING and not replica.is_retiring
    }
    return [seat for seat in rollout.vacated if seat not in running and seat < deployment.replicas_wanted]


def _give_way(turn: Turn, deployment: Deployment, old: Replica, newcomer: Replica) -> None:
    if deployment.rollout is not None:
        deployment.rollout.vacated.append(old.seat)
        turn.out.changes.deployments[deployment.name] = deployment
    turn.tell(
        "replica.gave_way",
        f"{deployment.name}/{old.seat} stops on {old.node} before version {newcomer.version} runs: "
        "there is no room for both",
        severity="warning", node=old.node, deployment=deployment.name, replica=old.id, version=old.version,
    )  # fmt: skip
    retire(turn, [old])
