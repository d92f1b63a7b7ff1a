"""A replica speaks for its own attempts alone, whatever tokens it names."""

from __future__ import annotations

from typing import Any

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.workload import Workload
from nodeagent.runner.protocol.frames import (
    FrameReader,
    Outcome,
    Output,
    Result,
    frame_results,
    pack_result,
)
from tests.unit.node.clock import Clock

MINE, THEIRS = 5, 7
"""Tokens that replicas 1 and 2 hold."""


class Seat:
    """A replica that is running, as its attempts see it."""

    presence = Presence.ACTIVE
    takes_work = True
    run_timeout_s = None
    shutdown_timeout_s = 1.0
    exclusive = False

    def __init__(self, number: int) -> None:
        self.id = number
        self.spec = self
        self.process = self
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def settle(self) -> None: ...
    def kill(self, why: str) -> None: ...


class Disk:
    def write(self, rows: Any, removed: Any, done: Any) -> None: ...


class Node:
    """Two replicas, each with one attempt in hand: the second is our hostile one."""

    def __init__(self) -> None:
        self.outgoing = Outgoing(lambda: None)
        self.outgoing.open(())
        self.seats = {number: Seat(number) for number in (1, 2)}
        self.workload = Workload(Clock(), self.seats, self.outgoing, Disk())

    def assign(self, *pairs: tuple[int, int]) -> None:
        self.workload.assign(
            wire.Assignment(task_id=token * 10, fencing_token=token, replica_id=replica) for token, replica in pairs
        )

    def result(self, replica: int, token: int, task_id: int | None = None, output: bytes = b"1") -> None:
        result = Result(token * 10 if task_id is None else task_id, token, Outcome.SUCCEEDED, 1, output)
        ((_, body),) = FrameReader().feed(frame_results([pack_result(result)]))
        self.workload.results(self.seats[replica], body)

    def told(self) -> list[Any]:
        """Everything that goes to the controller."""
        return list(self.outgoing.drain())

    def results(self) -> list[tuple[int, int, bytes]]:
        """(token, replica, output) of every result told now."""
        return [
            (it.fencing_token, it.replica_id, it.output)
            for message in self.told()
            for it in message.attempt_results.results
        ]


@pytest.fixture
def node() -> Node:
    node = Node()
    node.assign((MINE, 1), (THEIRS, 2))
    return node


def test_neighbours_task_is_not_ended(node: Node) -> None:
    node.result(2, MINE, output=b'"forged"')
    assert node.results() == []
    node.result(1, MINE, output=b'"true"')
    assert node.results() == [(MINE, 1, b'"true"')]
    assert node.workload.counts.frames_refused == 1


@pytest.mark.parametrize("task_id", [THEIRS * 10 + 1, 0, 2**64 - 1])
def test_result_names_the_task_of_its_token(node: Node, task_id: int) -> None:
    node.result(2, THEIRS, task_id)
    assert node.results() == []
    assert THEIRS in node.workload.attempts


def test_tokens_to_come_cannot_be_taken_before(node: Node) -> None:
    node.result(2, 9, output=b'"forged"')
    node.result(2, 2**64 - 1, task_id=1)
    assert node.results() == []
    node.assign((9, 1))
    node.result(1, 9, output=b'"true"')
    assert node.results() == [(9, 1, b'"true"')]


def test_neighbours_attempt_is_not_started_and_says_nothing(node: Node) -> None:
    node.workload.started(node.seats[2], (MINE, THEIRS))
    for task_id, token in ((MINE * 10, MINE), (THEIRS * 10 + 1, THEIRS), (THEIRS * 10, THEIRS)):
        node.workload.output(node.seats[2], Output(task_id, token, 1, b"1"))
    told = node.told()
    assert [list(it.attempts_started.tokens) for it in told if it.HasField("attempts_started")] == [[THEIRS]]
    assert [it.attempt_output.fencing_token for it in told if it.HasField("attempt_output")] == [THEIRS]


def test_what_is_held_since_an_earlier_daemon_is_told_under_the_replica_that_tells_it() -> None:
    """After a restart the daemon knows nothing of either: the controller compares the replica."""
    node = Node()
    node.workload.adopt(node.seats[2], [(MINE, MINE * 10, True)])
    node.workload.adopt(node.seats[1], [(MINE, MINE * 10, True)])
    node.result(2, MINE, output=b'"forged"')
    node.result(1, MINE, output=b'"true"')
    assert node.results() == [(MINE, 2, b'"forged"'), (MINE, 1, b'"true"')]


def test_held_that_no_daemon_gave_is_refused(node: Node) -> None:
    held = [(MINE, MINE * 10, True), (11, 110, True), (2**64 - 1, 1, False), (1, 2**64 - 1, False)]
    node.workload.adopt(node.seats[2], held)
    assert sorted(node.workload.attempts.tokens) == [MINE, THEIRS]
    node.workload.gone(node.seats[2], None, was_ours=False, why="it ended")
    assert [token for token, _, _ in node.results()] == [THEIRS]


def test_token_taken_before_a_daemon_was_given_any_goes_to_its_replica_all_the_same() -> None:
    node = Node()
    node.result(2, 9, output=b'"forged"')
    node.assign((9, 1))
    assert len(node.seats[1].sent) == 1, "it runs"
    node.result(1, 9, output=b'"true"')
    assert node.results() == [(9, 2, b'"forged"'), (9, 1, b'"true"')]
    assert [it.output for it in node.workload.outbox.results] == [b'"true"']
