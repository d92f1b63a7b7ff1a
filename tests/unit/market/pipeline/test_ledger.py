"""Laws of the gap ledger, against a set that remembers every number."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.market.model.intervals import Intervals
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.ledger import (
    ID_JUMP_MAX,
    REPAIR_ATTEMPTS_MAX,
    REPAIR_BACKOFF_MAX_NS,
    REPAIR_DELAY_NS,
    LedgerState,
    Seen,
    SequenceLedger,
    TradeLedger,
)

numbers = st.lists(st.integers(min_value=0, max_value=60), max_size=120)


@given(numbers)
def test_every_frame_number_counts_once(sequence: list[int]) -> None:
    ledger = SequenceLedger()
    seen: set[int] = set()
    for number in sequence:
        highest = max(seen, default=-1)
        verdict, hole = ledger.observe(number)
        if number in seen:
            assert verdict is Seen.DUPLICATE
        elif number > highest:
            assert verdict is Seen.NEW
            assert hole == ((highest + 1, number - 1) if number > highest + 1 else None)
        else:
            assert verdict is Seen.FILLS
        seen.add(number)
        missing = {n for first, last in ledger.missing for n in range(first, last + 1)}
        assert missing == set(range(max(seen) + 1)) - seen


@given(numbers)
def test_every_trade_counts_once(ids: list[int]) -> None:
    ledger = TradeLedger("BTC-USD")
    seen: set[int] = set()
    accepted: list[int] = []
    for number in ids:
        verdict, _ = ledger.observe(number, number, 0)
        if verdict in {Seen.NEW, Seen.FILLS}:
            accepted.append(number)
        elif verdict is Seen.OLDER:
            assert number < ids[0]
            continue
        seen.add(number)
    assert len(accepted) == len(set(accepted))
    if seen:
        assert set(accepted) == seen
        assert ledger.missing.total() == max(seen) - min(seen) + 1 - len(seen)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), max_size=20), st.data())
def test_intervals_are_a_set(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    intervals = Intervals()
    plain: set[int] = set()
    next_first = 0
    for skip, length in steps:
        first = next_first + skip + 1
        intervals.append(first, first + length - 1)
        plain |= set(range(first, first + length))
        next_first = first + length
    for _ in range(20):
        number = data.draw(st.integers(0, next_first + 2))
        assert (number in intervals) == (number in plain)
        assert intervals.remove(number) == (number in plain)
        plain.discard(number)
        assert intervals.total() == len(plain)
        low = data.draw(st.integers(0, next_first + 2))
        assert intervals.overlaps(low, low + 3) == bool(plain & set(range(low, low + 4)))


@settings(max_examples=50)
@given(st.sets(st.integers(1, 50), max_size=20))
def test_pages_for_the_due_holes_close_them(lost: set[int]) -> None:
    """Ask for what is due, receive it, and nothing is missing and nothing is due any more."""
    ledger = TradeLedger("BTC-USD", LedgerState(first_id=0, last_id=0))
    for number in range(1, 52):
        if number not in lost:
            ledger.observe(number, number * NS, 0)
    holes = ledger.due(REPAIR_DELAY_NS)
    assert {n for hole in holes for n in range(hole.first_id, hole.last_id + 1)} == lost
    for hole in holes:
        assert hole.after_ns <= hole.before_ns
        for number in range(hole.first_id, hole.last_id + 1):
            assert ledger.observe(number, number * NS, 0)[0] is Seen.FILLS
    assert ledger.missing.total() == 0
    assert ledger.due(10**18) == []


def test_a_hole_is_asked_for_again_with_growing_waits_and_an_end() -> None:
    ledger = TradeLedger("BTC-USD")
    ledger.observe(1, NS, 0)
    _, hole = ledger.observe(5, NS, 0)
    assert hole is not None
    assert (hole.first_id, hole.last_id) == (2, 4)
    assert ledger.due(0) == []
    asked_at = [now for now in range(0, 10_000 * NS, NS // 2) if ledger.due(now)]
    assert len(asked_at) == REPAIR_ATTEMPTS_MAX
    waits = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert waits == sorted(waits)
    assert max(waits) <= REPAIR_BACKOFF_MAX_NS


def test_a_clock_that_went_back_does_not_silence_the_questions() -> None:
    ledger = TradeLedger("BTC-USD")
    ledger.observe(1, NS, 10_000 * NS)
    ledger.observe(5, NS, 10_000 * NS)
    assert ledger.due(10 * NS), "an hour earlier by the clock, the hole is asked for all the same"


def test_a_restart_notices_what_passed_meanwhile() -> None:
    ledger = TradeLedger("BTC-USD", LedgerState(first_id=100, last_id=100))
    verdict, hole = ledger.observe(104, NS, 0)
    assert verdict is Seen.NEW
    assert hole is not None
    assert (hole.first_id, hole.last_id) == (101, 103)


def test_a_heartbeat_shows_a_lost_last_trade_at_the_next_beat() -> None:
    ledger = TradeLedger("BTC-USD")
    ledger.observe(10, NS, 0)
    assert ledger.announce(12, 2 * NS, 0) is None, "the trades may still be under way"
    assert ledger.announce(12, 2 * NS, 0) is None, "the same beat on a second connection"
    hole = ledger.announce(12, 3 * NS, 0)
    assert hole is not None
    assert (hole.first_id, hole.last_id) == (11, 12)


def test_trades_that_arrive_after_their_heartbeat_are_no_gap() -> None:
    ledger = TradeLedger("BTC-USD")
    ledger.observe(10, NS, 0)
    ledger.announce(11, 2 * NS, 0)
    assert ledger.observe(11, NS, 0) == (Seen.NEW, None)
    assert ledger.announce(11, 3 * NS, 0) is None
    assert ledger.missing.total() == 0


def test_a_damaged_id_is_no_gap_of_a_billion_trades() -> None:
    ledger = TradeLedger("BTC-USD")
    ledger.observe(10, NS, 0)
    assert ledger.observe(10 + ID_JUMP_MAX + 1, NS, 0)[0] is Seen.IMPLAUSIBLE
    assert ledger.missing.total() == 0
    assert ledger.observe(11, NS, 0) == (Seen.NEW, None)
