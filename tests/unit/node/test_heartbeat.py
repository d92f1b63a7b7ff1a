"""Beats: one at a time, from before it was sent, and given up when nobody answers."""

from __future__ import annotations

from nodeagent.core.lease import Heartbeat
from tests.unit.node.clock import Clock


def test_the_next_beat_leaves_when_the_last_was_answered_and_its_time_has_come() -> None:
    clock, beats, proofs = Clock(), [], []
    heart = Heartbeat(clock, lambda seq: beats.append((seq, clock.now)), proofs.append)
    heart.start(1.0, lambda silent_s: None)
    clock.advance(100.4)
    heart.answered(1)
    heart.answered(1)
    assert proofs == [100.0], "a proof holds from before the beat was sent"
    clock.advance(103.5)
    assert beats == [(1, 100.0), (2, 101.0)]
    heart.answered(2)
    assert beats[-1] == (2, 101.0)
    clock.advance(103.5)
    assert beats[-1] == (3, 103.5), "a stall is not made up for by a burst"
    assert proofs == [100.0, 101.0]


def test_a_daemon_that_stood_still_itself_reads_what_waits_before_it_gives_the_stream_up() -> None:
    clock, silences, proofs = Clock(), [], []
    heart = Heartbeat(clock, lambda seq: None, proofs.append)
    heart.start(1.0, silences.append)
    clock.now = 130.0
    clock.advance(130.0)
    assert silences == []
    heart.answered(1)
    assert proofs == [100.0]
    clock.now = 160.0
    clock.advance(160.0)
    clock.advance(170.0)
    assert silences == [5.0]


def test_a_beat_that_nobody_answers_ends_the_stream_once_and_an_old_answer_proves_nothing() -> None:
    clock, silences, proofs = Clock(), [], []
    heart = Heartbeat(clock, lambda seq: None, proofs.append)
    heart.start(1.0, silences.append)
    clock.advance(120.0)
    assert silences == [5.0]
    heart.answered(1)
    heart.stop()
    heart.start(1.0, silences.append)
    heart.answered(1)
    assert proofs == []
