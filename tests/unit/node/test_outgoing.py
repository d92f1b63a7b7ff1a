"""What waits to be told: gathered, in order, bounded."""

from __future__ import annotations

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import OUTPUT_BYTES_MAX, RESULT_BYTES_PER_MESSAGE, Outgoing


def result(token: int, size: int = 1) -> wire.AttemptResult:
    return wire.AttemptResult(task_id=token, fencing_token=token, output=b"x" * size)


def piece(seq: int, size: int = 1) -> wire.AttemptOutput:
    return wire.AttemptOutput(task_id=1, fencing_token=1, seq=seq, data=b"x" * size)


def test_without_a_stream_nothing_gathers() -> None:
    outgoing = Outgoing(lambda: None)
    outgoing.results([result(1)])
    outgoing.started([1])
    outgoing.output(piece(1))
    assert list(outgoing.drain()) == []


def test_many_facts_become_few_messages_in_an_order_that_can_be_understood() -> None:
    outgoing = Outgoing(lambda: None)
    outgoing.open([result(1)])
    outgoing.results([result(2)])
    outgoing.output(piece(1))
    outgoing.started([2, 3])
    for state in (wire.REPLICA_STATE_STARTING, wire.REPLICA_STATE_RUNNING):
        outgoing.report(wire.ReplicaStatus(replica_id=1, state=state))
    outgoing.beat(wire.Beat(seq=9))
    messages = list(outgoing.drain())
    assert [message.WhichOneof("body") for message in messages] == [
        "beat", "replica_report", "attempts_started", "attempt_output", "attempt_results",
    ]  # fmt: skip
    assert [status.state for status in messages[1].replica_report.replicas] == [wire.REPLICA_STATE_RUNNING]
    assert [r.fencing_token for r in messages[4].attempt_results.results] == [1, 2]
    assert list(outgoing.drain()) == []


def test_large_results_are_spread_over_messages() -> None:
    outgoing = Outgoing(lambda: None)
    outgoing.open([result(token, RESULT_BYTES_PER_MESSAGE // 2 + 1) for token in range(5)])
    assert [len(message.attempt_results.results) for message in outgoing.drain()] == [1] * 5


def test_old_pieces_are_dropped_and_counted_and_results_never() -> None:
    outgoing = Outgoing(lambda: None)
    outgoing.open([])
    for seq in range(1, 6):
        outgoing.output(piece(seq, OUTPUT_BYTES_MAX // 2))
    outgoing.results([result(1, OUTPUT_BYTES_MAX)])
    kept = list(outgoing.drain())
    assert [message.attempt_output.seq for message in kept[:-1]] == [4, 5]
    assert outgoing.outputs_dropped == 3
    assert kept[-1].WhichOneof("body") == "attempt_results"


def test_result_does_not_overtake_output_that_was_told_while_others_were_written() -> None:
    wakes: list[None] = []
    outgoing = Outgoing(lambda: wakes.append(None))
    outgoing.open([])
    outgoing.output(piece(1))
    writing = outgoing.drain()
    assert next(writing).attempt_output.seq == 1
    wakes.clear()
    outgoing.output(piece(2))
    outgoing.results([result(1)])
    assert wakes
    kinds = [message.WhichOneof("body") for message in (*writing, *outgoing.drain())]
    assert kinds == ["attempt_output", "attempt_results"]
