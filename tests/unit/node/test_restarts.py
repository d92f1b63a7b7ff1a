"""When a replica that died is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.restarts import DEFAULT_POLICY, Crashes


def test_five_crashes_within_a_minute_are_a_loop() -> None:
    crashes = Crashes()
    for moment in range(4):
        crashes = crashes.add(float(moment))
        assert not crashes.is_loop()
    assert crashes.add(59.0).is_loop()
    assert not crashes.add(60.0).is_loop()  # the first is a minute old, and forgotten


@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True))
def test_waits_grow_are_capped_and_jittered_by_half(count: int, chance: float) -> None:
    crashes = Crashes(tuple(float(moment) for moment in range(count)))
    wait_s = crashes.wait_s(chance)
    assert 0 <= wait_s <= DEFAULT_POLICY.longest_wait_s
    assert (wait_s == 0) == (count == 0)
    assert wait_s >= crashes.wait_s(0.0)
    longer = Crashes((*crashes.at, 99.0)).wait_s(0.0)
    assert longer >= crashes.wait_s(0.0)
