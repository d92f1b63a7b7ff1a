"""Text to exact numbers and times, and the refusal of everything else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.market.model.decimals import BadNumber, scaled, to_decimal, to_text
from nodeagent.market.model.events import RejectReason
from nodeagent.market.model.times import BadTime, parse_time_ns, to_iso


@given(st.decimals(min_value=0, max_value=10**18, places=8, allow_nan=False, allow_infinity=False))
def test_a_decimal_survives_scaling_exactly(number: Decimal) -> None:
    assert to_decimal(scaled(f"{number:f}")) == number
    assert Decimal(to_text(scaled(f"{number:f}"))) == number


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        number = scaled(text)
    except BadNumber:
        return
    assert to_decimal(number) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "-1", "+1", " 1", "1_000", "1,5", "NaN", "Infinity", "1e999", "0x10", "\u0661", "1.2.3", "9" * 5000],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(BadNumber):
        scaled(text)


def test_more_decimals_than_can_be_kept_are_refused_not_rounded() -> None:
    with pytest.raises(BadNumber) as refusal:
        scaled("0.0000000000001")
    assert refusal.value.reason is RejectReason.TOO_PRECISE
    assert scaled("0.00000000000100000") == 1
    assert scaled("1e-8") == 10_000


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_a_time_survives_its_text(time_ns: int) -> None:
    assert parse_time_ns(to_iso(time_ns)) == time_ns


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - made aware below
def test_times_agree_with_datetime(moment: datetime) -> None:
    text = moment.isoformat() + "Z"
    expected = int((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
    assert parse_time_ns(text) // 10**9 * 10**9 == expected
    assert parse_time_ns(text) % 10**9 == moment.microsecond * 1000


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        parse_time_ns(text)
    except BadTime:
        return
    assert datetime.fromisoformat(text[:19])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-08-09",
        "2026-W32-7T21:05:48Z",
        "20260809T210548.1Z",
        "2026-08-09T21:05:48",
        "2026-08-09T21:05:48.1+00:00",
        "2026-08-09 21:05:48Z",
        "2026-13-09T21:05:48Z",
        "2026-08-09T21:05:99Z",
        "2026-08-09T21:05:48.1234567891Z",
        "2026-08-09T21:05:48.Z",
        "2026-08-09T21:05:4Z",
        "2026-08-09T21:05:48x123Z",
    ],
)
def test_what_is_no_utc_time_is_refused(text: str) -> None:
    with pytest.raises(BadTime):
        parse_time_ns(text)
