"""Names: rules, the nearest match, unique prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.errors import InvalidRequest, NotFound
from agentfarm.names import check_name, is_name, name_from, nearest, resolve

KNOWN = ["market-brief", "market-maker", "echo", "echo-loud"]


@given(st.text(max_size=100))
def test_a_name_made_from_any_text_is_valid_or_empty(text: str) -> None:
    made = name_from(text)
    assert made == "" or is_name(made)
    assert name_from(made) == made


@pytest.mark.parametrize(
    ("text", "name"),
    [("question_answering", "question-answering"), ("MarketBrief", "market-brief"), ("2nd try!", "nd-try"), ("__", "")],
)
def test_names_from_files(text: str, name: str) -> None:
    assert name_from(text) == name


@pytest.mark.parametrize("text", ["", "A", "a_b", "-a", "a-", "a--b", "1a", "a" * 64, "ä", "a\n"])
def test_what_is_no_name_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(InvalidRequest, match="begins with a letter"):
        check_name(text)


def test_the_nearest_name_is_found() -> None:
    assert nearest("Market_Brief", KNOWN) == "market-brief"
    assert nearest("markt-brief", KNOWN) == "market-brief"
    assert nearest("brief", KNOWN) == "market-brief"
    assert nearest("zebra", KNOWN) is None


def test_prefixes_resolve_when_they_are_unique() -> None:
    assert resolve("market-b", KNOWN) == "market-brief"
    assert resolve("echo", KNOWN) == "echo"  # exact wins over longer
    with pytest.raises(InvalidRequest, match="market-brief, market-maker"):
        resolve("mark", KNOWN)
    with pytest.raises(NotFound, match="Did you mean 'market-brief'"):
        resolve("markt-brief", KNOWN)
    with pytest.raises(NotFound, match="There is no node yet"):
        resolve("x", [], "node")
    with pytest.raises(NotFound):
        resolve("", KNOWN)


@given(st.sets(st.text("abc-", min_size=1, max_size=5)), st.text("abc-", max_size=5))
def test_resolving_agrees_with_the_plain_rule(names: set[str], word: str) -> None:
    beginning = [name for name in names if name.startswith(word)] if word else []
    expected = word if word in names else beginning[0] if len(beginning) == 1 else None
    try:
        assert resolve(word, names) == expected
    except InvalidRequest:
        assert expected is None


def test_a_word_of_any_length_is_answered_without_a_close_name() -> None:
    assert nearest("market-brief" * 10_000, ["market-brief"]) is None
