"""Captured and stored trades side by side, and two feeds side by side: pure."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.market.audit.compare import agreement
from nodeagent.market.audit.trades import RUN_HOLE_MAX, Findings, Seen, in_words, runs


def seen(price: str = "100.25", size: str = "0.5", side: str = "buy", ts_us: int = 0) -> Seen:
    return Seen(Decimal(price), Decimal(size), side, ts_us)


def test_equal_trades_are_good_whatever_zeros_they_end_in() -> None:
    findings = Findings()
    findings.compare({1: seen(), 2: seen("3")}, {1: [seen("100.250000000000")], 2: [seen("3.0")], 9: [seen()]})
    assert findings.is_good
    assert (findings.captured, findings.stored) == (2, 2)


def test_each_kind_of_difference_is_counted_and_named() -> None:
    findings = Findings()
    captured = {1: seen(), 2: seen(), 3: seen(), 4: seen(), 5: seen(ts_us=7), 6: seen(side="sell")}
    stored = {
        1: [seen()], 3: [seen(), seen(ts_us=1)], 4: [seen(size="0.6")], 5: [seen(ts_us=8)], 6: [seen(side="buy")],
    }  # fmt: skip
    findings.compare(captured, stored)
    assert (findings.lacking, findings.twice, findings.differing) == (1, 1, 3)
    assert not findings.is_good
    assert [(one.trade_id, one.what) for one in findings.differences] == [
        (2, "lacking"), (3, "twice"), (4, "differing"), (5, "differing"), (6, "differing"),
    ]  # fmt: skip
    assert findings.differences[2].captured == "buy 0.5 at 100.25, 1970-01-01T00:00:00.000000Z"
    assert "0.6" in findings.differences[2].stored


def test_a_thousand_differences_are_counted_and_few_are_named() -> None:
    findings = Findings()
    findings.compare({trade_id: seen() for trade_id in range(1000)}, {})
    assert findings.lacking == 1000
    assert len(findings.differences) == 5


def test_amounts_are_written_plainly() -> None:
    assert in_words(seen("1E-12", "0")).startswith("buy 0 at 0.000000000001,")


@given(st.sets(st.integers(min_value=0, max_value=10**7), max_size=60))
def test_runs_cover_every_id_and_hold_no_wide_hole(ids: set[int]) -> None:
    found = list(runs(ids))
    assert {i for i in ids if any(first <= i <= last for first, last in found)} == ids
    assert all(first in ids and last in ids for first, last in found)
    for (_, last), (following, _) in pairwise(found):
        assert following - last > RUN_HOLE_MAX


def test_feeds_that_tell_the_same_agree() -> None:
    a = {trade_id: seen() for trade_id in range(10, 30)}
    b = {trade_id: seen() for trade_id in range(5, 25)}
    told = agreement("BTC-USD", a, b, {1: 100.0, 2: 101.0}, {2: 101.0, 3: 5.0})
    assert told.is_good
    assert (told.first_trade_id, told.last_trade_id, told.common) == (10, 24, 15)
    assert (told.seconds, told.equal_mids, told.mid_max_bps) == (1, 1, 0.0)


def test_a_trade_that_one_feed_lacks_or_tells_otherwise_is_named() -> None:
    a = {1: seen(), 2: seen(), 3: seen(), 4: seen()}
    b = {1: seen(), 3: seen("100.26"), 4: seen()}
    told = agreement("BTC-USD", a, b, {}, {})
    assert not told.is_good
    assert (told.only_a, told.only_b, told.differing, told.common) == (1, 0, 1, 3)
    assert [(one["trade_id"], one["what"]) for one in told.differences] == [(2, "only in A"), (3, "differing")]


def test_books_of_another_market_do_not_agree() -> None:
    trades = {1: seen(), 2: seen()}
    mids = dict.fromkeys(range(10), 100.0)
    assert agreement("X", trades, trades, mids, dict.fromkeys(mids, 100.01)).is_good
    far = agreement("X", trades, trades, mids, dict.fromkeys(mids, 100.5))
    assert not far.is_good
    assert far.mid_median_bps == 50.0


def test_recordings_of_different_days_agree_on_nothing() -> None:
    told = agreement("X", {1: seen()}, {7: seen()}, {}, {})
    assert not told.is_good
    assert told.common == 0
