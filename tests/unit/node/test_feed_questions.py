"""A question's arguments as a command line."""

from __future__ import annotations

import pytest

from agentfarm.errors import InvalidRequest
from nodeagent.market.audit.__main__ import _options
from nodeagent.services.market.questions import arguments_of


def test_arguments_become_options_that_the_program_reads() -> None:
    found = arguments_of("gaps", {"product": "BTC-USD", "since": "2026-03-01T12:00:00Z", "open": "true"})
    assert found == ["--product=BTC-USD", "--since=2026-03-01T12:00:00Z", "--open"]
    read = _options(["gaps", *found, "--endpoint=e.json"])
    assert (read.product, read.since, read.open) == ("BTC-USD", 1772366400 * 10**9, True)


def test_a_value_that_looks_like_an_option_stays_a_value() -> None:
    found = arguments_of("verify", {"product": "--endpoint=/etc/passwd"})
    assert _options(["verify", *found, "capture"]).product == "--endpoint=/etc/passwd"


def test_what_is_not_given_is_left_out() -> None:
    assert arguments_of("gaps", {}) == []
    assert arguments_of("gaps", {"open": "", "since": ""}) == []


@pytest.mark.parametrize(
    ("verb", "said", "words"),
    [
        ("erase", {}, "no question 'erase'"),
        ("replay", {"prodct": "X"}, "no 'prodct'"),
        ("verify", {"until": "x"}, "no 'until'"),
    ],
)
def test_what_this_release_does_not_know_is_refused(verb: str, said: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        arguments_of(verb, said)
