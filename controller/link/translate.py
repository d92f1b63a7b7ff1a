"""Between the wire's messages and the core's words. Pure; unknown values become the harmless choice, never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import orjson
from google.protobuf.message import DecodeError

from agentfarm.errors import InvalidRequest
from agentfarm.limits import COUNT_MAX, ID_MAX, WORD_CHARS_MAX, WORDS_MAX
from agentfarm.wire import link_pb2 as wire
from controller.core.commands import AttemptResult, Command, NodeBeat, NodeJoined, ReplicaNews
from controller.core.lives import Outcome, ReplicaState
from controller.core.model import Limits, Measured, NodeName, ReplicaId, TaskId, Token
from controller.core.transition import (
    AckBeat,
    AckResults,
    Assign,
    CancelAttempts,
    CloseSession,
    Effect,
    Lease,
    RecallAttempts,
    SetDesired,
)
from controller.link.messages import bounded, count, identity, word
from controller.link.services import SERVICES

PROTOCOL: Final = 1
OUTPUT_NOT_JSON: Final = "OutputNotJson"
"""The error type of an attempt whose output was none."""

REPLICA_STATES: Final = {
    wire.REPLICA_STATE_STARTING: ReplicaState.STARTING,
    wire.REPLICA_STATE_RUNNING: ReplicaState.RUNNING,
    wire.REPLICA_STATE_UNHEALTHY: ReplicaState.UNHEALTHY,
    wire.REPLICA_STATE_STOPPING: ReplicaState.STOPPING,
    wire.REPLICA_STATE_STOPPED: ReplicaState.STOPPED,
    wire.REPLICA_STATE_FAILED: ReplicaState.FAILED,
}
OUTCOMES: Final = {
    wire.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    wire.OUTCOME_FAILED: Outcome.FAILED,
    wire.OUTCOME_TIMED_OUT: Outcome.TIMED_OUT,
    wire.OUTCOME_CANCELLED: Outcome.CANCELLED,
    wire.OUTCOME_INTERRUPTED: Outcome.INTERRUPTED,
}
CANCEL_REASONS: Final = {
    "requested": wire.CANCEL_REASON_REQUESTED,
    "stale": wire.CANCEL_REASON_STALE,
    "moved": wire.CANCEL_REASON_MOVED,
}


# ------------------------------------------------------------------ from the node


OnUnread = Callable[[str, DecodeError], None]
"""Hears of a service, by its name, whose message cannot be read."""


def ignore(service: str, problem: DecodeError) -> None:
    """An `OnUnread` that does nothing."""
    del service, problem


def joined(node: NodeName, session: int, hello: wire.Hello, on_unread: OnUnread = ignore) -> NodeJoined:
    """A Hello as the core hears it, with what it says of the node's services. One that cannot be read is left out.

    Raises InvalidRequest for a capacity, labels or capabilities that no machine has: to take others in their place
    would be to place work by a guess.
    """
    _check_hello(hello)
    joined = NodeJoined(
        node=node,
        session=session,
        daemon_version=word(hello.daemon_version),
        cpu_millicores=hello.capacity.cpu_millicores,
        memory_mib=hello.capacity.memory_mib,
        gpus=hello.capacity.gpus,
        labels=dict(hello.labels),
        capabilities=frozenset(hello.capabilities),
        products=frozenset(),
        measured=measured(hello.measured) if hello.HasField("measured") else None,
        replicas=replica_news(hello.replicas),
        running=frozenset(Token(token) for token in hello.running_tokens),
        finished=frozenset(Token(token) for token in hello.finished_tokens),
        metrics_address=word(hello.metrics_address),
    )
    for item in hello.services:
        if (service := SERVICES.get(item.name)) is None:
            continue
        try:
            joined = service.joined(joined, item.payload)
        except DecodeError as problem:
            on_unread(item.name, problem)
    return joined


def _check_hello(hello: wire.Hello) -> None:
    capacity = hello.capacity
    for name, value in (
        ("cpu_millicores", capacity.cpu_millicores), ("memory_mib", capacity.memory_mib), ("gpus", capacity.gpus),
    ):  # fmt: skip
        if value > COUNT_MAX:
            raise InvalidRequest(f"The node says that its {name} is {value}; the most is {COUNT_MAX}.")
    words = [*hello.labels, *hello.labels.values(), *hello.capabilities]
    if len(hello.labels) > WORDS_MAX or len(hello.capabilities) > WORDS_MAX:
        raise InvalidRequest(f"The node has more than {WORDS_MAX} labels or capabilities.")
    if any(len(text) > WORD_CHARS_MAX or "\0" in text for text in words):
        raise InvalidRequest(f"A label or capability of the node is longer than {WORD_CHARS_MAX}, or holds a NUL.")


def beat(node: NodeName, session: int, message: wire.Beat, on_unread: OnUnread = ignore) -> Iterator[Command]:
    """A heartbeat as the core hears it, and what the node's services report with it, where that can be read."""
    node_measured = measured(message.measured) if message.HasField("measured") else None
    commands: list[Command] = []
    for item in message.services:
        if (service := SERVICES.get(item.name)) is None:
            continue
        try:
            if node_measured is not None:
                node_measured = service.measured(node_measured, item.payload)
            command = service.reported(node, session, item.payload)
        except DecodeError as problem:
            on_unread(item.name, problem)
            continue
        if command is not None:
            commands.append(command)
    yield NodeBeat(node, session, message.seq, node_measured)
    yield from commands


def measured(message: wire.Measured) -> Measured:
    """What the daemon measured."""
    return Measured(message.memory_available_mib, message.cpu_used_millicores, message.disk_free_mib)


def replica_news(statuses: Iterable[wire.ReplicaStatus]) -> tuple[ReplicaNews, ...]:
    """Replica statuses as the core hears them; a state of a newer daemon that we do not know is left out."""
    return tuple(
        ReplicaNews(
            ReplicaId(identity(status.replica_id)),
            REPLICA_STATES[status.state],
            word(status.reason),
            bounded(status.detail),
            count(status.pid),
            count(status.restarts),
            count(status.private_mib),
            count(status.ready_ms),
        )
        for status in statuses
        if status.state in REPLICA_STATES
    )


def results(message: wire.AttemptResults) -> tuple[AttemptResult, ...]:
    """Results as the core hears them.

    An outcome of a newer daemon that we do not know counts as failed, and so does an output that is not JSON: callers
    get outputs as they are, in the midst of JSON of ours. A task that no bigint can name is task 0, which is none.
    """
    return tuple(
        _not_json(item)
        if (output := item.output) and not is_json(output)
        else AttemptResult(
            _task(item.task_id),
            Token(item.fencing_token),
            OUTCOMES.get(item.outcome, Outcome.FAILED),
            output,
            item.error_type and bounded(item.error_type),
            item.error_message and bounded(item.error_message),
            item.error_traceback and bounded(item.error_traceback),
            item.duration_us / 1e6,
            _replica(item.replica_id),
        )
        for item in message.results
    )


def _task(number: int) -> TaskId:
    return TaskId(number if number <= ID_MAX else 0)


def _replica(number: int) -> ReplicaId | None:
    """0 is what a node of 0.1 says."""
    return ReplicaId(number) if number else None


def is_json(data: bytes) -> bool:
    """Whether it is one JSON text (RFC 8259)."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _not_json(item: wire.AttemptResult) -> AttemptResult:
    return AttemptResult(
        _task(item.task_id), Token(item.fencing_token), Outcome.FAILED, b"", OUTPUT_NOT_JSON,
        "The output is not JSON.", "", item.duration_us / 1e6, _replica(item.replica_id),
    )  # fmt: skip


# ------------------------------------------------------------------ to the node


def welcome(
    epoch: int, limits: Limits, beat_interval_s: float, stop_exclusive_after_s: float
) -> wire.ControllerMessage:
    """The answer to Hello: the times both sides go by."""
    return wire.ControllerMessage(
        welcome=wire.Welcome(
            protocol=PROTOCOL,
            controller_epoch=epoch,
            beat_interval_ms=int(beat_interval_s * 1000),
            unreachable_after_ms=int(limits.unreachable_after_s * 1000),
            reissue_after_ms=int(limits.reissue_after_s * 1000),
            stop_exclusive_after_ms=int(stop_exclusive_after_s * 1000),
            has_services=True,
        )
    )


def message(effect: Effect) -> wire.ControllerMessage | None:
    """An effect as the node hears it; None for CloseSession, which has no words."""
    if isinstance(effect, Assign):
        return wire.ControllerMessage(assign=wire.Assign(assignments=[_assignment(lease) for lease in effect.leases]))
    if isinstance(effect, AckResults):
        return results_ack(effect.tokens)
    if isinstance(effect, AckBeat):
        return wire.ControllerMessage(beat_ack=wire.BeatAck(seq=effect.seq))
    if isinstance(effect, CancelAttempts):
        reason = CANCEL_REASONS[effect.reason]
        return wire.ControllerMessage(cancel_attempts=wire.CancelAttempts(tokens=effect.tokens, reason=reason))
    if isinstance(effect, RecallAttempts):
        return wire.ControllerMessage(recall_attempts=wire.RecallAttempts(tokens=effect.tokens))
    if isinstance(effect, SetDesired):
        return wire.ControllerMessage(desired=_desired(effect))
    assert isinstance(effect, CloseSession)
    return None


def results_ack(tokens: Iterable[int]) -> wire.ControllerMessage:
    """These results are stored, or refused for good."""
    return wire.ControllerMessage(results_ack=wire.ResultsAck(tokens=tokens))


def _assignment(lease: Lease) -> wire.Assignment:
    return wire.Assignment(
        task_id=lease.task,
        attempt=lease.attempt,
        fencing_token=lease.token,
        replica_id=lease.replica,
        input=lease.input,
        run_timeout_ms=int(lease.run_timeout_s * 1000) if lease.run_timeout_s else 0,
        thread_id=lease.thread_id,
        exclusive=lease.is_exclusive,
    )


def _desired(effect: SetDesired) -> wire.Desired:
    return wire.Desired(
        generation=effect.generation,
        replicas=[
            wire.DesiredReplica(
                replica_id=item.replica,
                deployment=item.deployment,
                seat=item.seat,
                version=item.version,
                bundle_digest=item.digest,
                spec_json=item.spec_json,
                stopping=item.is_stopping,
            )
            for item in effect.replicas
        ],
        services=[
            wire.ServiceDesired(name=name, payload=payload)
            for name, service in SERVICES.items()
            if (payload := service.desired(effect)) is not None
        ],
    )
