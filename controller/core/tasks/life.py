"""The life of a task: accepted, leased, ended, tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentfarm.backoff import backoff_s
from agentfarm.errors import FarmError, InvalidRequest, NotFound, StaleToken, Unavailable
from agentfarm.limits import PRIORITY_MAX, PRIORITY_MIN
from controller.core.commands import (
    AttemptResult,
    AttemptsEnded,
    AttemptsStarted,
    CancelTask,
    FactSetAside,
    KnownTask,
    NewTask,
    StoreCheckpoint,
    SubmitTasks,
)
from controller.core.lives import Outcome, TaskState, move_task
from controller.core.model import (
    Deployment,
    FarmState,
    ReplicaId,
    Task,
    TaskId,
    TaskOptions,
    Token,
)
from controller.core.policy import Policy
from controller.core.timers import QueueTimedOut, RetryDue
from controller.core.transition import CheckpointRow
from controller.core.turn import TASK_THREAD_PREFIX, Turn

PERMANENT_ERRORS = frozenset({"Reject"})  # the agent says that trying again is useless
CRASH_ERRORS = frozenset({"ReplicaCrashed"})  # the replica died with the attempt
WORKED = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT})  # its replica is free for the next
SERVED_STORED_EACH_S = 5.0  # a controller that dies takes at most so much of these counts with it
SERVICE_FALL_WEIGHT = 0.05  # of an attempt that was shorter than a deployment's estimate of service time


# ------------------------------------------------------------------ accepting


def submit(turn: Turn, command: SubmitTasks) -> list[TaskId | KnownTask | FarmError]:
    """Accept each task that can be accepted; the answer has one entry for each, in order."""
    return [_submit_one(turn, new, command.known_keys) for new in command.tasks]


def _submit_one(turn: Turn, new: NewTask, known_keys: dict[str, TaskId]) -> TaskId | KnownTask | FarmError:
    state = turn.state
    key = new.options.idempotency_key if new.options is not None else None
    if key is not None:
        earlier = known_keys.get(key) or turn.keys.get(key)
        if earlier is not None:
            return KnownTask(earlier)
    deployment = state.deployments.get(new.deployment)
    if deployment is None or deployment.is_removed:
        return NotFound(
            f"No agent {new.deployment!r} is deployed.", remedy="Deploy it first: farmctl deploy PATH.",
            known=sorted(name for name, deployment in state.deployments.items() if not deployment.is_removed),
        )  # fmt: skip
    if len(state.tasks) >= state.limits.queued_max:
        return Unavailable(f"The farm holds {state.limits.queued_max} tasks, its limit.", remedy="Try again later.")
    policy = turn.policy(deployment)
    priority = policy.priority if new.priority is None else new.priority
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        return InvalidRequest(f"priority is {priority}; it must be from {PRIORITY_MIN} to {PRIORITY_MAX}.")
    task = Task(
        id=TaskId(state.next_task), deployment=deployment.name, priority=priority, submitted_at=turn.now.wall,
        input=new.input, input_size=len(new.input), options=new.options,
    )  # fmt: skip
    state.next_task += 1
    state.tasks[task.id] = task
    deployment.queued += 1
    turn.out.changes.inserted_tasks.append(task)
    state.queued_input_bytes += len(new.input)
    turn.enqueue(task, deployment)
    wait_s = queue_timeout_s(policy, task.options)
    if wait_s is not None:
        turn.at(turn.now.mono + wait_s, QueueTimedOut(task.id))
    if key is not None:
        turn.keys[key] = task.id
    return task.id


def forget_queued_inputs(turn: Turn) -> None:
    """Keep inputs of what was just queued in memory only while there is room for them."""
    state = turn.state
    if state.queued_input_bytes <= state.limits.input_memory_bytes:
        return
    for task in reversed(turn.out.changes.inserted_tasks):
        if task.state is TaskState.QUEUED and task.input is not None:
            state.queued_input_bytes -= len(task.input)
            turn.out.forget_inputs.append(task)
            if state.queued_input_bytes <= state.limits.input_memory_bytes:
                return


def queue_timeout_s(policy: Policy, options: TaskOptions | None) -> float | None:
    """How long the task may wait for its first attempt."""
    if options is not None and options.queue_timeout_s is not None:
        return options.queue_timeout_s
    return policy.queue_timeout_s


def max_attempts(policy: Policy, options: TaskOptions | None) -> int:
    """How many attempts may fail before the task is dead."""
    if options is not None and options.max_attempts is not None:
        return options.max_attempts
    return policy.max_attempts


def run_timeout_s(policy: Policy, options: TaskOptions | None) -> float | None:
    """How long one attempt may run."""
    if options is not None and options.run_timeout_s is not None:
        return options.run_timeout_s
    return policy.run_timeout_s


def thread_id(task: Task) -> str:
    """The checkpoint thread of a task: its caller's, or its own."""
    if task.options is not None and task.options.thread_id is not None:
        return task.options.thread_id
    return f"{TASK_THREAD_PREFIX}{task.id}"


# ------------------------------------------------------------------ timers


def queue_timed_out(turn: Turn, timer: QueueTimedOut) -> None:
    """The task waited too long for its first attempt."""
    task = turn.state.tasks.get(timer.task)
    if task is None or task.state is not TaskState.QUEUED or task.attempt:
        return
    turn.finish(task, "queue_timeout", error=("QueueTimeout", "No replica was free before the queue-wait limit.", ""))


def retry_due(turn: Turn, timer: RetryDue) -> None:
    """The backoff of a task is over."""
    task = turn.state.tasks.get(timer.task)
    if task is not None and task.state is TaskState.QUEUED and task.not_before:
        task.not_before = 0.0
        turn.enqueue(task, turn.state.deployments[task.deployment])


# ------------------------------------------------------------------ cancelling


def cancel(turn: Turn, command: CancelTask) -> TaskState | FarmError:
    """A queued task is cancelled at once; a leased one when its node says that nothing works on it any more."""
    task = turn.state.tasks.get(command.task)
    if task is None:
        return NotFound(f"Task {command.task} is not live: it has ended, or never was.")
    if task.state is TaskState.QUEUED:
        turn.finish(task, "cancelled", error=("Cancelled", "Cancelled while it waited.", ""))
    elif not task.is_cancelling:
        assert task.node is not None
        assert task.token is not None
        task.is_cancelling = True
        turn.out.changes.cancelling_tasks.append(task.id)
        turn.cancel(turn.state.nodes[task.node], [task.token], "requested")
    return task.state


# ------------------------------------------------------------------ what nodes say of attempts


def attempts_started(turn: Turn, command: AttemptsStarted) -> None:
    """The replica began to work on these."""
    for task in _held_by(turn.state, command.tokens):
        if task.node == command.node and task.state is TaskState.LEASED:
            task.state = move_task(task.state, "started")
            turn.out.started.append(task.id)


def attempts_ended(turn: Turn, command: AttemptsEnded) -> None:
    """Results. Each is acknowledged: one that holds its task's lease ends it, any other is refused for good."""
    acks = turn.acks.setdefault(command.node, [])
    unfinished = []
    for result in command.results:
        acks.append(result.token)
        task = turn.state.tasks.get(result.task)
        if (
            task is None
            or task.token != result.token
            or task.node != command.node
            or (result.replica is not None and result.replica != task.replica)
        ):
            turn.tell("attempt.refused", f"a late result of task {result.task} was refused: its lease is void",
                      node=command.node, task=result.task, fencing_token=result.token,
                      outcome=result.outcome.value)  # fmt: skip
            continue
        if result.outcome is Outcome.INTERRUPTED:
            unfinished.append((task, result))
        else:
            _end_attempt(turn, task, result)
    for task, result in sorted(unfinished, key=lambda pair: pair[1].token, reverse=True):  # each goes to the front
        _end_attempt(turn, task, result)


def fact_set_aside(turn: Turn, command: FactSetAside) -> None:
    """Say what was set aside. A result of which nothing can be stored is a failed attempt of its task."""
    turn.tell("fact.set_aside", f"what {command.node} said can never be stored and is set aside: {command.why}",
              severity="error", node=command.node, fact=command.fact)  # fmt: skip
    if (result := command.result) is not None:
        turn.acks.setdefault(command.node, []).append(result.token)
        task = turn.state.tasks.get(result.task)
        if task is not None and task.token == result.token and task.node == command.node:
            failed = AttemptResult(task.id, result.token, Outcome.FAILED, b"", "ResultRefused", command.why)
            _end_attempt(turn, task, failed)


def _end_attempt(turn: Turn, task: Task, result: AttemptResult) -> None:
    deployment = turn.state.deployments[task.deployment]
    if result.outcome in WORKED and (replica := turn.state.replicas.get(task.replica or ReplicaId(0))) is not None:
        replica.progressed_at = turn.now.mono
    if result.outcome is Outcome.SUCCEEDED:
        _learn_service_time(deployment, result.duration_s)
        replica = turn.state.replicas.get(task.replica) if task.replica is not None else None
        if replica is not None:
            replica.served_lately += 1
            if deployment.seat_failures.pop(replica.seat, None) is not None:
                turn.changed(deployment)
        turn.finish(task, "succeeded", result.output)
    elif task.is_cancelling or result.outcome is Outcome.CANCELLED:
        turn.finish(task, "cancelled", error=("Cancelled", "Cancelled while it ran.", ""))
    elif result.outcome is Outcome.INTERRUPTED:
        turn.give_back(task, Outcome.INTERRUPTED, result.error_type or "interrupted")
    else:
        _fail_attempt(turn, task, deployment, result)


def _fail_attempt(turn: Turn, task: Task, deployment: Deployment, result: AttemptResult) -> None:
    policy = turn.policy(deployment)
    error = (result.error_type, result.error_message, result.error_traceback)
    task.failures += 1
    if result.error_type in CRASH_ERRORS:
        task.crashes += 1
    if result.error_type in PERMANENT_ERRORS:
        turn.finish(task, "failed", error=error)
    elif task.crashes >= turn.state.limits.poison_after:
        turn.finish_poisoned(task, f"{result.error_type}: {result.error_message}")
    elif task.failures >= max_attempts(policy, task.options):
        turn.tell("task.dead", f"task {task.id} used up its {task.failures} attempts: {result.error_type}",
                  severity="warning", task=task.id, deployment=deployment.name)  # fmt: skip
        turn.finish(task, "exhausted", error=error)
    else:
        chance = turn.chance(task.id, task.attempt)
        wait_s = backoff_s(task.failures, policy.backoff_s, policy.backoff_max_s, chance)
        turn.requeue(task, result.outcome, error_type=result.error_type, error_message=result.error_message,
                     wait_s=wait_s)  # fmt: skip


def _learn_service_time(deployment: Deployment, duration_s: float) -> None:
    """Up at once, down slowly: one long attempt ends prefetching, so that little is parked behind the next one."""
    known_s = deployment.service_s
    if known_s is None or duration_s >= known_s:
        deployment.service_s = duration_s
    else:
        deployment.service_s = known_s + SERVICE_FALL_WEIGHT * (duration_s - known_s)


@dataclass(slots=True)
class Counts:
    """When what replicas have served was stored."""

    stored_at: float = 0.0
    """mono"""


def keep_count(turn: Turn) -> None:
    """Store now and then what replicas have served. A row of the replica for each task would cost too much."""
    counts = turn.state.own(Counts)
    if turn.now.mono - counts.stored_at < SERVED_STORED_EACH_S:
        return
    counts.stored_at = turn.now.mono
    for replica in turn.state.replicas.values():
        if replica.served_lately:
            replica.served, replica.served_lately = replica.served + replica.served_lately, 0
            turn.changed(replica)


# ------------------------------------------------------------------ checkpoints


def store_checkpoint(turn: Turn, command: StoreCheckpoint) -> FarmError | None:
    """Keep a run's checkpoint, if its attempt still holds the lease and the thread is its own."""
    task = turn.state.tasks.get(command.task)
    if task is None or task.token != command.token:
        return StaleToken(f"The lease of task {command.task} is gone.", remedy="Stop this attempt.")
    if command.thread_id != thread_id(task):
        return InvalidRequest(f"Thread {command.thread_id!r} does not belong to task {command.task}.")
    task.has_checkpoints = True
    turn.out.changes.checkpoints.append(
        CheckpointRow(
            command.thread_id, command.namespace, command.checkpoint_id, command.parent_id,
            command.payload, command.writes,
        )
    )  # fmt: skip
    return None


def _held_by(state: FarmState, tokens: Iterable[Token]) -> Iterable[Task]:
    for token in tokens:
        task_id = state.by_token.get(token)
        if task_id is not None:
            yield state.tasks[task_id]
