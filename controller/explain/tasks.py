"""Why a live task stands where it stands, and what each replica could do for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agentfarm.errors import NotFound
from controller.core.lives import TaskState
from controller.core.model import Deployment, DeploymentName, FarmState, Instant, NodeName, Task, TaskId
from controller.core.tasks.recall import parked
from controller.core.turn import Turn
from controller.explain.nodes import NodeFit, replica_fits
from controller.explain.replicas import WORKING, ReplicaStanding, standings


class TaskCause(Enum):
    """What a live task waits for."""

    CANCELLING = "cancelling"
    AT_REPLICA = "at_replica"
    PARKED = "parked"
    """It is at a replica that has not begun it: others go first there."""
    BACKOFF = "backoff"
    HALTED = "halted"
    NO_REPLICA = "no_replica"
    NONE_WORKS = "none_works"
    ALL_BUSY = "all_busy"


@dataclass(frozen=True, slots=True)
class TaskExplanation:
    """Where a live task stands."""

    task: TaskId
    deployment: DeploymentName
    state: TaskState
    cause: TaskCause
    because: str
    """The cause as a sentence, with numbers and names."""
    ahead: int
    """Queued tasks of the same deployment that go first."""
    node: NodeName | None
    attempt: int
    failures: int
    replicas: tuple[ReplicaStanding, ...]
    nodes: tuple[NodeFit, ...]
    """Where a replica would fit; given only while the deployment has none."""


def explain_task(state: FarmState, task_id: TaskId, now: Instant) -> TaskExplanation:
    """Where a live task stands, what it waits for, and what each replica could do for it. Raises NotFound."""
    task = state.tasks.get(task_id)
    if task is None:
        raise NotFound(f"Task {task_id} is not live: it has ended, or never was.", remedy="See: farmctl task show.")
    deployment = state.deployments[task.deployment]
    turn = Turn(state, now)
    replicas = standings(turn, deployment)
    cause, because = _cause(turn, task, deployment, replicas)
    return TaskExplanation(
        task=task.id,
        deployment=task.deployment,
        state=task.state,
        cause=cause,
        because=because,
        ahead=_ahead(state, task, deployment) if task.state is TaskState.QUEUED else 0,
        node=task.node,
        attempt=task.attempt,
        failures=task.failures,
        replicas=replicas,
        nodes=() if replicas else replica_fits(state, deployment.name, turn.policy(deployment)),
    )


def _cause(
    turn: Turn, task: Task, deployment: Deployment, replicas: Sequence[ReplicaStanding]
) -> tuple[TaskCause, str]:
    now = turn.now
    if task.is_cancelling:
        return TaskCause.CANCELLING, "it was asked to stop; its node has not confirmed yet"
    if task.state is not TaskState.QUEUED:
        return _cause_at_replica(turn, task)
    if task.not_before > now.mono:
        wait_s = task.not_before - now.mono
        return TaskCause.BACKOFF, f"it failed {task.failures} times; the next attempt is in {wait_s:.1f} s"
    if deployment.is_halted:
        return TaskCause.HALTED, f"version {deployment.version} of {deployment.name} cannot run"
    if not replicas:
        reason = "" if deployment.replicas_wanted else ": scaled to 0"
        return TaskCause.NO_REPLICA, f"{deployment.name} has no replica{reason}"
    if not any(replica.verdict in WORKING for replica in replicas):
        return TaskCause.NONE_WORKS, "no replica can take work"
    return TaskCause.ALL_BUSY, "every replica is busy"


def _cause_at_replica(turn: Turn, task: Task) -> tuple[TaskCause, str]:
    state = turn.state
    replica = state.replicas.get(task.replica) if task.replica is not None else None
    place = f"attempt {task.attempt} is at replica {task.replica} on {task.node}"
    if replica is None or task.token is None or task.token not in parked(turn, replica):
        return TaskCause.AT_REPLICA, place
    first = state.by_token[min(replica.tokens)]
    stalled_s = turn.now.mono - replica.progressed_at
    sentence = f"{place}, where it waits behind task {first}: nothing has ended there for {stalled_s:.1f} s"
    is_recalled = replica.recalled_at > replica.progressed_at
    return TaskCause.PARKED, sentence + ("; the replica was asked to give it back" if is_recalled else "")


def _ahead(state: FarmState, task: Task, deployment: Deployment) -> int:
    """How many tasks of its deployment go first."""
    ahead = 0
    for priority, queue in deployment.queues.items():
        if priority > task.priority:
            ahead += len(queue)
        elif priority == task.priority:
            for other in queue:
                if other == task.id:
                    break
                ahead += other in state.tasks
    return ahead
