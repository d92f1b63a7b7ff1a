"""One turn of the engine as the core sees it: the state, the moment, and what follows so far.

Rules shared by all parts of the core live here: how a task is queued, leased and ended, how a replica moves, and which
things were touched and must be looked at again before the turn ends.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controller.core.commands import Command, Tick
from controller.core.lives import Outcome, ReplicaState, TaskState, move_replica, move_task
from controller.core.model import (
    Deployment,
    DeploymentName,
    FarmState,
    Instant,
    Node,
    NodeName,
    Replica,
    ReplicaId,
    Task,
    TaskId,
    Token,
)
from controller.core.policy import Policy
from controller.core.records import Table
from controller.core.timers import RetryDue, Timer
from controller.core.transition import (
    AckResults,
    CancelAttempts,
    CloseSession,
    EndedAttempt,
    Event,
    FinishedTask,
    LeaseBatch,
    Transition,
)

Handler = Callable[["Turn", Any], object]
TASK_THREAD_PREFIX: Final = "task-"
TIME_PASSES: Final = Tick()


@dataclass(frozen=True, slots=True)
class Part:
    """A subject of the core: what it stores, and what it does when it is asked and when time comes.

    Each has one in the `part` module of its folder; controller/core/parts.py lists them. What a part does in each turn
    is a line of `decide`, where the order of a turn can be seen, and no hook here.
    """

    name: str
    tables: tuple[Table[Any], ...] = ()
    """Of its records, in the order in which they are written: what a row points at comes before it."""
    commands: Mapping[type[Any], Handler] = field(default_factory=dict)
    """Kinds of commands, and what answers each."""
    timers: Mapping[type[Any], Handler] = field(default_factory=dict)
    """Kinds of timers, and what each does when it is due."""


class Turn:
    """What one call of `decide` works on."""

    __slots__ = (
        "acks", "batches", "cancels", "command", "desired", "dispatch", "is_feeding", "is_placing", "keys", "now",
        "out", "seats", "state",
    )  # fmt: skip

    def __init__(self, state: FarmState, now: Instant) -> None:
        self.state = state
        self.now = now
        self.command: Command = TIME_PASSES  # whose actor stands in the events that follow
        self.out = Transition()
        self.keys: dict[str, TaskId] = {}  # idempotency keys accepted in this turn
        self.dispatch: set[DeploymentName] = set()  # queues or replicas changed
        self.seats: set[DeploymentName] = set()  # seats to be compared with what is wanted
        self.desired: set[NodeName] = set()  # nodes whose list of replicas or products changed
        self.acks: dict[NodeName, list[Token]] = {}
        self.cancels: dict[tuple[NodeName, str], list[Token]] = {}
        self.batches: dict[NodeName, LeaseBatch] = {}
        self.is_placing = False  # something changed that may let a pending replica fit
        self.is_feeding = False  # something changed that may move market products

    # -------------------------------------------------------------- records

    def changed(self, thing: Any) -> None:
        """A stored field of a record changed, or the record is new: it is stored with this turn."""
        self.out.changes.store(thing)

    def removed(self, thing: Any) -> None:
        """A record is no more: its row goes with this turn."""
        self.out.changes.remove(thing)

    # -------------------------------------------------------------- telling

    def tell(self, kind: str, message: str, *, severity: str = "info", **about: Any) -> None:
        """Record one fact of the farm's story. `about`: node, deployment, replica, task, and small `data`."""
        refs = {name: about.pop(name) for name in ("node", "deployment", "replica", "task") if name in about}
        actor = self.command.actor
        self.out.changes.events.append(
            Event(kind, self.now.wall, message, severity=severity, data=about, actor=actor, **refs)
        )

    def cancel(self, node: Node, tokens: list[Token], reason: str) -> None:
        """Ask a node to stop attempts, if it can be asked at all."""
        if node.session and tokens:
            self.cancels.setdefault((node.name, reason), []).extend(tokens)

    def close_session(self, node: Node, reason: str) -> None:
        """Give up the node's present stream."""
        if node.session:
            self.out.effects.append(CloseSession(node.name, node.session, reason))
            node.session = 0

    def flush_messages(self) -> None:
        """Turn collected acknowledgements and cancellations into one effect per node each."""
        nodes = self.state.nodes
        for name, tokens in self.acks.items():
            if name in nodes and nodes[name].session:
                self.out.effects.append(AckResults(name, nodes[name].session, tokens))
        for (name, reason), tokens in self.cancels.items():
            if name in nodes and nodes[name].session:
                self.out.effects.append(CancelAttempts(name, nodes[name].session, tokens, reason))

    # -------------------------------------------------------------- time and chance

    def at(self, mono: float, timer: Timer) -> None:
        """Set a timer for a moment."""
        self.state.timer_sequence += 1
        heapq.heappush(self.state.timers, (mono, self.state.timer_sequence, timer))

    def chance(self, *key: int) -> float:
        """A number in [0, 1) that depends on the seed and the key alone."""
        return random.Random(f"{self.state.seed}:{key}").random()  # noqa: S311 - jitter, not a secret

    # -------------------------------------------------------------- tasks

    def policy(self, deployment: Deployment) -> Policy:
        """The policy of the version new work gets."""
        return deployment.versions[deployment.version].policy

    def enqueue(self, task: Task, deployment: Deployment, *, is_first: bool = False) -> None:
        """Put a queued task into its deployment's line; `is_first`: ahead of its priority's others."""
        queue = deployment.queues.get(task.priority)
        if queue is None:
            queue = deployment.queues[task.priority] = deque()
        if is_first:
            queue.appendleft(task.id)
        else:
            queue.append(task.id)
        self.dispatch.add(deployment.name)

    def end_lease(self, task: Task, deployment: Deployment) -> None:
        """The task's current attempt holds its lease no more."""
        state = self.state
        if task.token is None:
            return
        state.by_token.pop(task.token, None)
        deployment.leased -= 1
        self.dispatch.add(deployment.name)
        replica = state.replicas.get(task.replica) if task.replica is not None else None
        if replica is not None:
            replica.tokens.discard(task.token)
            if replica.is_retiring and not replica.tokens:
                self.seats.add(deployment.name)
        held = state.lease_batches.get(task.lease_batch)
        if held == 1:
            del state.lease_batches[task.lease_batch]
            self.out.changes.ended_lease_batches.append(task.lease_batch)
        elif held:
            state.lease_batches[task.lease_batch] = held - 1

    def finish(self, task: Task, event: str, output: bytes = b"", error: tuple[str, str, str] = ("", "", "")) -> None:
        """End a task; nothing changes it afterwards.

        event: a final move of TASK_MOVES. error: type, message and traceback.
        """
        state, deployment = self.state, self.state.deployments[task.deployment]
        was_queued = task.state is TaskState.QUEUED
        task.state = move_task(task.state, event)
        if was_queued:
            deployment.queued -= 1
            self.drop_input(task)
        self.end_lease(task, deployment)
        del state.tasks[task.id]
        replica = state.replicas.get(task.replica) if task.replica is not None else None
        version = replica.version if replica is not None else None
        finished = FinishedTask(task, task.state, self.now.wall, output, *error, version=version)
        self.out.changes.finished_tasks.append(finished)
        self.out.finished.append(finished)
        if task.has_checkpoints and (task.options is None or task.options.thread_id is None):
            self.out.changes.dropped_threads.append(f"{TASK_THREAD_PREFIX}{task.id}")
        if deployment.is_removed:
            self.seats.add(deployment.name)

    def requeue(
        self, task: Task, outcome: Outcome, *, error_type: str = "", error_message: str = "", wait_s: float = 0.0
    ) -> None:
        """Give a leased task back to its queue, after `wait_s`. Its old token is void from now on.

        Of a removed deployment nothing will take it from there: its task ends instead.
        """
        deployment = self.state.deployments[task.deployment]
        if deployment.is_removed:
            self.finish(task, "cancelled", error=("Cancelled", f"{deployment.name} was removed.", ""))
            return
        assert task.token is not None
        self.out.changes.ended_attempts.append(
            EndedAttempt(
                task.id, task.attempt, task.token, task.node, task.replica, task.leased_at, self.now.wall,
                outcome.value, error_type, error_message,
            )
        )  # fmt: skip
        task.state = move_task(task.state, "retry")
        self.end_lease(task, deployment)
        task.token = task.replica = task.node = None
        deployment.queued += 1
        self.state.queued_input_bytes += len(task.input or b"")
        task.not_before = self.now.mono + wait_s if wait_s else 0.0
        self.out.changes.requeued_tasks.append(task)
        if wait_s:
            self.at(task.not_before, RetryDue(task.id))
        else:
            self.enqueue(task, deployment, is_first=True)

    def drop_input(self, task: Task) -> None:
        """The task leaves the queue: its input counts no more against the memory for queued inputs."""
        if task.input is not None:
            self.state.queued_input_bytes -= len(task.input)

    # -------------------------------------------------------------- replicas

    def move(self, replica: Replica, event: str, *, reason: str = "", detail: str = "") -> None:
        """Move a replica by the table and mark everything that depends on it."""
        replica.state = move_replica(replica.state, event)
        replica.since = self.now.wall
        replica.reason, replica.detail = reason, detail
        self.changed(replica)
        self.seats.add(replica.deployment)
        self.dispatch.add(replica.deployment)

    def remove_replica(self, replica: Replica) -> None:
        """Forget a replica that has ended: no process of it remains, or its node is lost."""
        state = self.state
        state.replicas.pop(replica.id, None)
        state.pending.pop(replica.id, None)
        deployment = state.deployments[replica.deployment]
        deployment.replicas.discard(replica.id)
        if replica.node is not None and replica.node in state.nodes:
            state.nodes[replica.node].replicas.discard(replica.id)
            self.desired.add(replica.node)
        self.removed(replica)
        self.seats.add(deployment.name)
        self.is_placing = True

    def attempts_of(self, replica: Replica) -> list[Task]:
        """The live tasks leased to a replica, oldest first."""
        state = self.state
        return [state.tasks[state.by_token[token]] for token in sorted(replica.tokens)]

    def end_replica(self, replica: Replica, event: str, *, reason: str, detail: str = "") -> None:
        """A replica is no more: its attempts go back to the queue and it is forgotten."""
        for task in reversed(self.attempts_of(replica)):  # each goes to the front: the oldest last
            self.give_back(task, Outcome.LOST if reason == "node_lost" else Outcome.INTERRUPTED, reason)
        if replica.state not in (ReplicaState.STOPPED, ReplicaState.FAILED):
            self.move(replica, event, reason=reason, detail=detail)
        self.remove_replica(replica)

    def give_back(self, task: Task, outcome: Outcome, reason: str) -> None:
        """An attempt ended through no fault of its task: cancelled if asked, dead if poison, else requeued."""
        if outcome is Outcome.LOST and task.state is TaskState.RUNNING:
            task.crashes += 1
        if task.is_cancelling:
            self.finish(task, "cancelled", error=("Cancelled", f"Cancelled while its attempt was {reason}.", ""))
        elif task.crashes >= self.state.limits.poison_after:
            self.finish_poisoned(task, f"the last one was {reason}")
        else:
            self.requeue(task, outcome, error_type=reason)

    def finish_poisoned(self, task: Task, last: str) -> None:
        """Dead: running it again would only kill the next replica."""
        message = f"{task.crashes} attempts took their replica or node down with them; {last}."
        self.tell("task.dead", f"task {task.id} is quarantined: {message}", severity="error", task=task.id,
                  deployment=task.deployment)  # fmt: skip
        self.finish(task, "exhausted", error=("Poison", message, ""))

    def replica_of(self, replica_id: ReplicaId, node: NodeName) -> Replica | None:
        """The live replica of that id if it sits on that node; a node may not speak for others."""
        replica = self.state.replicas.get(replica_id)
        return replica if replica is not None and replica.node == node else None
