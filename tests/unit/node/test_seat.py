"""The life of a seat, and the roll call of a new daemon, on a machine that the test plays."""

from __future__ import annotations

import json

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.problems import LinkAway, StartFailed
from nodeagent.core.rollcall import Rollcall
from nodeagent.core.seat import ProcessEnd, Seat
from nodeagent.runner.protocol.frames import Kind, frame
from tests.unit.node.clock import Clock


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sent: list[bytes] = []
        self.is_killed = self.is_detached = False

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def kill(self) -> None:
        self.is_killed = True

    def detach(self) -> None:
        self.is_detached = True


class Place:
    """Machine and house of one seat."""

    def __init__(self, *, exclusive: bool = False) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.remembered = 0
        self.works = False
        spec = {"name": "agent", "exclusive": exclusive, "timeouts": {"shutdown_s": 10.0, "healthy_s": 100.0}}
        wanted = wire.DesiredReplica(replica_id=1, deployment="agent", seat=1, spec_json=json.dumps(spec))
        self.seat = Seat(wanted, self.clock, self, self)

    def chance(self) -> float:
        return 0.0

    def prepare(self, seat: Seat) -> None:
        self.asked.append("prepare")

    def fork(self, seat: Seat) -> None:
        self.asked.append("fork")

    def remember(self, seat: Seat) -> None:
        self.remembered += 1

    def warn(self, seat: Seat, event: str, why: str) -> None: ...

    def changed(self, seat: Seat) -> None: ...

    def has_work(self, seat: Seat) -> bool:
        return self.works

    def gone(self, seat: Seat, pid: int, end: ProcessEnd) -> None:
        self.asked.append(f"gone {pid}")

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(self.clock.now + seconds)

    def run(self, pid: int = 7) -> Process:
        """From the beginning to a replica that is ready."""
        self.seat.begin()
        self.pass_s(1.0)
        self.seat.prepared()
        process = Process(pid)
        self.seat.runs(process)
        self.seat.hello(5)
        return process


def test_a_seat_is_prepared_then_forked_and_takes_work_when_its_replica_says_hello() -> None:
    place = Place()
    place.seat.begin()
    place.pass_s(0.0)
    assert place.asked == ["prepare"]
    place.seat.prepared()
    assert place.asked == ["prepare", "fork"]
    place.seat.runs(Process(7))
    assert not place.seat.takes_work
    place.seat.hello(5)
    assert place.seat.takes_work
    assert (place.seat.status.state, place.seat.status.pid) == (wire.REPLICA_STATE_RUNNING, 7)


def test_what_may_get_better_is_tried_again_and_what_may_not_is_final() -> None:
    place = Place()
    place.seat.begin()
    place.pass_s(0.0)
    place.seat.not_started(LinkAway())
    place.pass_s(0.3)
    place.seat.not_started(StartFailed("crashed", "the zygote died", is_final=False))
    place.pass_s(1.0)
    assert place.asked == ["prepare"] * 3
    place.seat.not_started(StartFailed("import_failed", "Traceback", is_final=True))
    place.pass_s(100.0)
    assert place.seat.presence is Presence.ENDED
    assert (place.seat.status.state, place.seat.status.reason) == (wire.REPLICA_STATE_FAILED, "import_failed")
    assert place.asked == ["prepare"] * 3


def test_a_stop_while_it_is_prepared_ends_it_and_one_while_it_is_forked_ends_its_process() -> None:
    place = Place()
    place.seat.begin()
    place.pass_s(0.0)
    place.seat.stop()
    assert place.seat.presence is Presence.ENDED
    place.seat.prepared()  # what was begun is finished, and nobody wants it
    assert place.asked == ["prepare"]

    place = Place()
    place.seat.begin()
    place.pass_s(0.0)
    place.seat.prepared()
    place.seat.stop()
    assert place.seat.presence is Presence.STOPPING
    process = Process(7)
    place.seat.runs(process)
    assert process.is_killed
    place.seat.gone(ProcessEnd(was_ours=True, why="it was killed"))
    assert place.seat.status.state == wire.REPLICA_STATE_STOPPED


def test_a_preparation_that_outlasts_its_seat_writes_nothing() -> None:
    """The folder of a removed replica would come back."""
    place = Place()
    place.seat.begin()
    place.pass_s(0.0)
    place.seat.stop()
    before = place.remembered
    place.seat.forked_from("farm", "agent-1")
    assert place.remembered == before


def test_a_process_is_asked_to_stop_and_killed_after_its_time() -> None:
    place = Place()
    process = place.run()
    place.seat.stop()
    assert process.sent == [frame(Kind.STOP)]
    place.pass_s(9.0)
    assert not process.is_killed
    place.pass_s(1.5)
    assert process.is_killed


def test_one_that_retires_stops_with_its_last_attempt() -> None:
    place = Place()
    process = place.run()
    place.works = True
    place.seat.retire()
    assert place.seat.takes_work, "what was sent before it heard is still done"
    assert not process.sent
    place.works = False
    place.seat.settle()
    assert process.sent == [frame(Kind.STOP)]


def test_five_crashes_in_a_minute_are_a_loop() -> None:
    place = Place()
    place.run()
    for _ in range(4):
        place.seat.gone(ProcessEnd(was_ours=False, why="it exited with code 1."))
        place.pass_s(6.0)
        place.seat.prepared()
        place.seat.runs(Process(8))
    assert place.seat.presence is Presence.ACTIVE
    place.seat.gone(ProcessEnd(was_ours=False, why="it exited with code 1."))
    assert (place.seat.status.state, place.seat.status.reason) == (wire.REPLICA_STATE_FAILED, "crash_loop")


def test_the_roll_call_waits_for_answers_and_ends_exclusive_replicas_that_give_none() -> None:
    for exclusive in (False, True):
        place = Place(exclusive=exclusive)
        process = Process(7)
        place.seat.adopt(process)
        ends: list[float] = []
        rollcall = Rollcall(place.clock, lambda ends=ends, place=place: ends.append(place.clock.now))
        rollcall.begin([place.seat], [])
        place.pass_s(3.5)
        assert process.is_killed == exclusive
        assert ends == ([] if exclusive else [103.0])
        rollcall.gone(1, 7)
        assert len(ends) == 1


def test_the_roll_call_is_over_when_all_have_answered_and_strangers_are_gone() -> None:
    place = Place()
    place.seat.adopt(Process(7))
    stranger, ends = Process(9), []
    rollcall = Rollcall(place.clock, lambda: ends.append(place.clock.now))
    rollcall.begin([place.seat], [stranger])
    assert stranger.is_killed
    rollcall.answered(1)
    assert not ends
    rollcall.gone(0, 9)
    assert ends == [100.0]
