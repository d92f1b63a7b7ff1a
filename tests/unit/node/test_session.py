"""What is said on a stream, and what follows from what is heard. Nothing is carried here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outbox import Row, Written
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.roster import Roster
from nodeagent.core.session import Session
from tests.unit.node.clock import Clock

WELCOME = wire.Welcome(beat_interval_ms=1000, stop_exclusive_after_ms=6000, has_services=True)


class Node:
    """Disk, ground, services and host of a session: a node without replicas."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lists: list[list[str]] = []
        self.leases: list[float] = []
        self.questions: list[str] = []
        self.exclusive_stops: list[int] = []
        self.reports_due = 0
        self.silences: list[float] = []
        outgoing = Outgoing(lambda: None)
        self.roster = Roster(self.clock, self, outgoing, self)  # type: ignore[arg-type]  # no seat asks more
        self.session = Session(self.clock, self.roster, outgoing, self, self, epoch=7)
        self.outgoing = outgoing

    def welcome(self) -> None:
        self.session.hello()
        self.session.welcomed(WELCOME, self.silences.append)

    def hear(self, **body: Any) -> None:
        self.session.take(wire.ControllerMessage(**body))

    def sent(self) -> list[str | None]:
        return [message.WhichOneof("body") for message in self.outgoing.drain()]

    # disk and ground

    def write(self, rows: list[Row], removed: list[int], done: Callable[[Written], None]) -> None:
        """It never answers."""

    def zygotes_hear(self, until_s: float, *, is_wanted: bool) -> None:
        assert not is_wanted
        self.leases.append(until_s)

    # services

    def hello(self) -> list[wire.ServiceHello]:
        return [wire.ServiceHello(name="market")]

    def new_stream(self) -> None:
        self.reports_due = 1

    def reports(self) -> list[wire.ServiceReport]:
        due, self.reports_due = self.reports_due, 0
        return [wire.ServiceReport(name="market")] * due

    def obey(self, desired: Iterable[wire.ServiceDesired]) -> None:
        self.lists.append([service.name for service in desired])

    # host

    def introduction(self) -> wire.Hello:
        return wire.Hello(daemon_version="1.2")

    def measured(self) -> wire.Measured:
        return wire.Measured(disk_free_mib=9)

    def asked(self, kind: str, message: wire.ControllerMessage) -> None:
        self.questions.append(kind)

    def exclusive_stopped(self, attempts: int) -> None:
        self.exclusive_stops.append(attempts)


@pytest.fixture
def node() -> Node:
    return Node()


def result(token: int) -> wire.AttemptResult:
    return wire.AttemptResult(task_id=1, fencing_token=token)


def test_hello_says_what_is_in_hand_and_what_waits_follows_it(node: Node) -> None:
    node.roster.workload.outbox.keep([result(5)], 1)
    hello = node.session.hello()
    assert (hello.protocol, hello.daemon_epoch, hello.daemon_version) == (1, 7, "1.2")
    assert (list(hello.finished_tokens), [service.name for service in hello.services]) == ([5], ["market"])
    assert hello.has_services
    assert node.sent() == ["attempt_results"]


def test_a_daemon_that_was_just_started_speaks_of_no_lease(node: Node) -> None:
    speak_of_no_lease(node)


def speak_of_no_lease(node: Node) -> None:
    """A story of a start without a controller; also told under a mutant."""
    node.roster.call_roll(lambda: None)
    node.clock.advance(to=160.0)
    assert node.leases == []


def test_beat_follows_welcome_and_its_answer_renews_the_lease_from_when_it_left(node: Node) -> None:
    node.session.hello()
    node.clock.advance(101.0)
    node.session.welcomed(WELCOME, node.silences.append)
    assert node.leases == [106.0], "from the Hello on"
    (message,) = node.outgoing.drain()
    assert (message.beat.measured.disk_free_mib, len(message.beat.services)) == (9, 1)
    node.clock.advance(101.5)
    node.hear(beat_ack=wire.BeatAck(seq=message.beat.seq))
    assert node.leases[-1] == 107.0
    node.clock.advance(102.0)
    (message,) = node.outgoing.drain()
    assert not message.beat.services, "the services have said everything on this stream"


def test_stream_without_answers_is_given_up(node: Node) -> None:
    node.welcome()
    node.clock.advance(104.9)
    assert not node.silences
    node.clock.advance(105.0)
    assert node.silences == [5.0]


def test_orders_reach_those_who_obey_them(node: Node) -> None:
    node.roster.workload.outbox.keep([result(5)], 1)
    node.welcome()
    node.hear(results_ack=wire.ResultsAck(tokens=[5]))
    assert not len(node.roster.workload.outbox)
    node.sent()
    node.hear(assign=wire.Assign(assignments=[wire.Assignment(task_id=2, fencing_token=6, replica_id=1)]))
    assert node.sent() == ["attempt_results"], "no replica of that id is here"
    node.hear(log_request=wire.LogRequest())
    node.hear()
    assert node.questions == ["log_request"]


def test_older_list_is_no_order_for_services_either(node: Node) -> None:
    def listed(generation: int) -> None:
        node.hear(desired=wire.Desired(generation=generation, services=[wire.ServiceDesired(name="market")]))

    node.welcome()
    listed(3)
    listed(2)
    assert node.lists == [["market"]]
    node.welcome()
    listed(1)
    assert node.lists == [["market"], ["market"]], "another stream has its own count"
    node.roster.close()
    listed(2)
    assert len(node.lists) == 2


def test_facts_between_streams_are_dropped_because_hello_says_them(node: Node) -> None:
    node.welcome()
    node.session.ended()
    node.session.ended()
    node.outgoing.started([5])
    assert node.sent() == []


def test_waits_grow_until_a_stream_worked_and_refusal_waits_long(node: Node) -> None:
    waits = [node.session.retry_s(100.0, 1.0) for _ in range(6)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert node.session.retry_s(98.9, 1.0) == 0.1, "the last one lasted longer than the longest wait"
    assert node.session.retry_s(100.0, 0.0, is_refused=True) == 5.0


def test_nobody_is_told_of_a_lease_that_is_over_where_nothing_is_exclusive(node: Node) -> None:
    node.welcome()
    node.session.ended()
    node.clock.advance(110.0)
    assert node.exclusive_stops == []
