"""What one replica could do now, and why it is where it is, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agentfarm.errors import NotFound
from controller.core.lives import ReplicaState
from controller.core.model import Deployment, DeploymentName, FarmState, Instant, NodeName, Replica, ReplicaId
from controller.core.tasks.dispatch import is_open, room_at
from controller.core.turn import Turn
from controller.explain.nodes import NodeFit, replica_fits


class Verdict(Enum):
    """What a replica could do with one more task."""

    RETIRING = "retiring"
    NOT_RUNNING = "not_running"
    UNREACHABLE = "unreachable"
    FULL = "full"
    FREE = "free"


WORKING: Final = frozenset({Verdict.FULL, Verdict.FREE})
"""The verdicts of replicas that take tasks, now or after those that they hold."""


@dataclass(frozen=True, slots=True)
class ReplicaStanding:
    """One replica of a deployment, and what it could do now."""

    replica: ReplicaId
    seat: int
    version: int
    node: NodeName | None
    state: ReplicaState
    verdict: Verdict
    sentence: str
    """The verdict for people, with what it rests on."""


@dataclass(frozen=True, slots=True)
class ReplicaExplanation:
    """Why a replica is where it is."""

    replica: ReplicaId
    deployment: DeploymentName
    seat: int
    version: int
    state: ReplicaState
    because: str
    reason: str
    """The word its node gave for how it stands, such as "import_failed"."""
    detail: str
    node: NodeName | None
    nodes: tuple[NodeFit, ...]


def standings(turn: Turn, deployment: Deployment) -> tuple[ReplicaStanding, ...]:
    """Every replica of a deployment, oldest first."""
    return tuple(_standing(turn, deployment, turn.state.replicas[replica]) for replica in sorted(deployment.replicas))


def explain_replica(state: FarmState, replica_id: ReplicaId, now: Instant) -> ReplicaExplanation:
    """Why a replica is where it is, or nowhere. Raises NotFound."""
    replica = state.replicas.get(replica_id)
    if replica is None:
        raise NotFound(f"There is no replica {replica_id}.")
    deployment = state.deployments[replica.deployment]
    policy = deployment.versions[replica.version].policy
    return ReplicaExplanation(
        replica=replica.id,
        deployment=replica.deployment,
        seat=replica.seat,
        version=replica.version,
        state=replica.state,
        because=_because(replica, now),
        reason=replica.reason,
        detail=replica.detail,
        node=replica.node,
        nodes=replica_fits(state, deployment.name, policy),
    )


def _because(replica: Replica, now: Instant) -> str:
    match replica.state:
        case ReplicaState.PENDING if replica.not_before > now.mono:
            return f"earlier replicas of this seat failed; the next try is in {replica.not_before - now.mono:.0f} s"
        case ReplicaState.PENDING:
            return "no node can seat it now"
        case ReplicaState.STARTING:
            return "its node prepares it: bundle, environment, import"
        case ReplicaState.STOPPING:
            return f"it finishes {len(replica.tokens)} attempts, then stops"
        case _:
            return replica.state.value


def _standing(turn: Turn, deployment: Deployment, replica: Replica) -> ReplicaStanding:
    verdict, sentence = _verdict(turn, deployment, replica)
    return ReplicaStanding(
        replica.id, replica.seat, replica.version, replica.node, replica.state, verdict, sentence
    )  # fmt: skip


def _verdict(turn: Turn, deployment: Deployment, replica: Replica) -> tuple[Verdict, str]:
    if replica.is_retiring:
        return Verdict.RETIRING, "retiring: takes no new task"
    if replica.state is not ReplicaState.RUNNING:
        reason = f" ({replica.reason})" if replica.reason else ""
        return Verdict.NOT_RUNNING, f"not running: {replica.state.value}{reason}"
    if not is_open(turn, replica):
        return Verdict.UNREACHABLE, f"its node {replica.node} cannot be reached"
    held, room = len(replica.tokens), room_at(turn.state, deployment, replica, turn.now.mono)
    if held >= room:
        return Verdict.FULL, f"full: holds {held} of {room}{_stall(turn, replica)}"
    return Verdict.FREE, f"free: holds {held} of {room}"


def _stall(turn: Turn, replica: Replica) -> str:
    """What a replica has worked on for longer than tasks parked at it should wait; empty where it has not."""
    stalled_s = turn.now.mono - replica.progressed_at
    if not replica.tokens or stalled_s < turn.state.limits.prefetch_horizon_s or not replica.progressed_at:
        return ""
    oldest = turn.state.by_token[min(replica.tokens)]
    return f", at work on task {oldest}; nothing has ended there for {stalled_s:.1f} s"
