"""The words of the code and its pages: plain English, and names that are nouns (see CONTRIBUTING.md).

A test can refuse words; it cannot see whether a sentence is clear. So it holds a short list of words that came from the
old dialect, and the participles and pronouns that stood for values.
"""

from __future__ import annotations

import ast
import functools
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


def files(*suffixes: str) -> Iterator[str]:
    for part in (*PRODUCT, "docs"):
        for path in sorted((ROOT / part).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in suffixes and not name.startswith("agentfarm/wire/"):
                yield name
    yield from (path.name for path in sorted(ROOT.glob("*.md")) if ".md" in suffixes and path.name != "CHANGELOG.md")


@functools.lru_cache(maxsize=1)
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.lru_cache(maxsize=1)
def comments(source: str) -> tuple[tuple[int, str], ...]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return tuple((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)


def prose(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a module, with their lines."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), node.lineno)
    yield from comments(source)


def names(source: str) -> Iterator[tuple[int, str]]:
    """The names that a module gives to values and functions."""
    for node in ast.walk(parsed(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name


def commented_fields(source: str) -> Iterator[tuple[int, str]]:
    """Fields of a class with a comment beside them; a word for a tool (`noqa`, `type`, `fmt`) is none."""
    beside = {number: text for number, text in comments(source) if not re.match(r"# (noqa|type|fmt):", text)}
    for owner in ast.walk(parsed(source)):
        for node in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and not beside.keys().isdisjoint(_lines(node)):
                yield node.lineno, ast.unparse(node.target)


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def dialect_in(lines: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{number}: {match[0]!r} in {line.strip()!r}" for number, line in lines for match in DIALECT.finditer(line)]


@pytest.mark.parametrize("name", list(files(".py")))
def test_docstrings_comments_and_names_are_plain(name: str) -> None:
    source = (ROOT / name).read_text(encoding="utf-8")
    problems = dialect_in(prose(source))
    problems += [f"{number}: the name {word!r}" for number, word in names(source) if word.strip("_") in NAMES]
    problems += [
        f"{number}: say of the field {field!r} what it is in a string below"
        for number, field in commented_fields(source)
    ]
    assert not problems, "\n".join([name, *problems])


@pytest.mark.parametrize("name", list(files(".md")))
def test_pages_are_plain(name: str) -> None:
    problems = dialect_in(enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1))
    assert not problems, "\n".join([name, *problems])


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


@pytest.mark.parametrize(
    ("field", "is_commented"),
    [("a: int  # in seconds", True), ("a: int  # noqa: A003", False), ('a: int\n    """In seconds."""', False)],
)
def test_a_comment_beside_a_field_is_seen(field: str, is_commented: bool) -> None:
    assert bool(list(commented_fields(f"class A:\n    {field}\n"))) is is_commented
