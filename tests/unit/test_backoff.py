"""The wait before the next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentfarm.backoff import Backoff, backoff_s, longest_s

ALMOST_ONE = 1.0 - 2.0**-53


def test_longest_wait_doubles_until_its_maximum() -> None:
    assert [longest_s(attempt, 0.1, 1.0) for attempt in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [longest_s(attempt, 0.1, 5.0, growth=4.0) for attempt in range(1, 5)] == [0.1, 0.4, 1.6, 5.0]


def test_no_failure_waits_not_at_all() -> None:
    assert backoff_s(0, 1.0, 60.0, 0.5) == 0.0


@given(
    st.integers(1, 10**9),
    st.floats(0.0, 1e5),
    st.floats(0.0, 1e5),
    st.floats(0.0, ALMOST_ONE),
    st.sampled_from((2.0, 4.0)),
)
def test_wait_is_between_half_and_all_of_the_longest_and_never_above_the_maximum(
    attempt: int, first_s: float, max_s: float, chance: float, growth: float
) -> None:
    longest = longest_s(attempt, first_s, max_s, growth)
    assert longest <= max_s
    assert longest / 2 <= backoff_s(attempt, first_s, max_s, chance, growth) <= longest


@given(st.integers(1, 100), st.floats(0.001, 10.0), st.floats(0.001, 100.0))
def test_longest_wait_never_shrinks(attempt: int, first_s: float, max_s: float) -> None:
    assert longest_s(attempt, first_s, max_s) <= longest_s(attempt + 1, first_s, max_s)


def test_failures_in_a_row_wait_longer_and_a_success_ends_the_row() -> None:
    backoff = Backoff(1.0, 4.0, chance=lambda: 0.5)
    assert [backoff.next_s() for _ in range(4)] == [0.75, 1.5, 3.0, 3.0]
    assert backoff.failures == 4
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_s() == 0.75


def test_two_that_failed_together_do_not_come_back_together() -> None:
    assert len({Backoff(1.0, 4.0).next_s() for _ in range(50)}) == 50
