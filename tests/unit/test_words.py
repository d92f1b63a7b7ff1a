"""The words of the code and its pages: plain English, and names that are nouns (see CONTRIBUTING.md).

A test can refuse words; it cannot see whether a sentence is clear. So it holds a short list of words that came from the
old dialect, and the participles and pronouns that stood for values.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = ("agentfarm", "controller", "nodeagent", "farmctl", "provisioning", "benchmarks", "examples")

DIALECT: Final = re.compile(r"\b(anew|whoever|whomever|for ever|nobody|anybody|told)\b", re.IGNORECASE)
"""In docstrings, comments and pages. Write "again", "the caller", "always", "no task", "the node gets", …"""

NAMES: Final = frozenset({"said", "told", "found", "known", "wanted", "heard", "kept", "it"})
"""Not the name of a value or a function: name the thing (`answer`, `status`, `match`, …)."""

REMAINING: Final[tuple[str, ...]] = (
    "controller/core",
    "controller/explain",
    "controller/journal",
    "nodeagent/core",
    "nodeagent/replicas",
    "nodeagent/runner",
)
"""Rooms whose words are still to be made plain, as beginnings of paths. This list only gets shorter."""


def files(*suffixes: str) -> Iterator[str]:
    for part in (*PRODUCT, "docs"):
        for path in sorted((ROOT / part).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in suffixes and not name.startswith(("agentfarm/wire/", *REMAINING)):
                yield name
    yield from (path.name for path in sorted(ROOT.glob("*.md")) if ".md" in suffixes and path.name != "CHANGELOG.md")


def prose(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a module, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names(source: str) -> Iterator[tuple[int, str]]:
    """The names that a module gives to values and functions."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name


def dialect_in(lines: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{number}: {match[0]!r} in {line.strip()!r}" for number, line in lines for match in DIALECT.finditer(line)]


@pytest.mark.parametrize("name", list(files(".py")))
def test_docstrings_comments_and_names_are_plain(name: str) -> None:
    source = (ROOT / name).read_text(encoding="utf-8")
    problems = dialect_in(prose(source))
    problems += [f"{number}: the name {word!r}" for number, word in names(source) if word.strip("_") in NAMES]
    assert not problems, "\n".join([name, *problems])


@pytest.mark.parametrize("name", list(files(".md")))
def test_pages_are_plain(name: str) -> None:
    problems = dialect_in(enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1))
    assert not problems, "\n".join([name, *problems])


@pytest.mark.parametrize("room", REMAINING)
def test_a_remaining_room_exists(room: str) -> None:
    assert list(ROOT.glob(f"{room}*")), f"{room} is no more: take it off the list"


@pytest.mark.parametrize(
    "source",
    ['"""The lease begins anew."""', "x = 1  # nobody reads it", "class A:\n    b: int\n    '''Told to the node.'''"],
)
def test_dialect_is_seen(source: str) -> None:
    assert dialect_in(prose(source))


@pytest.mark.parametrize(
    "source",
    ["told = 1", "def said(): ...", "def f(found): ...", "f(it for it in x)", "self._kept = 1", "for known in x: ..."],
)
def test_names_that_are_no_nouns_are_seen(source: str) -> None:
    assert {word.strip("_") for _, word in names(source)} & NAMES
