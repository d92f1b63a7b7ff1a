"""Which files of a folder stay out of a bundle: a built-in list, then the folder's own `.farmignore`.

The patterns are those of `.gitignore` (source: the page gitignore(5)): one a line, `#` comments, `!` takes back, a
slash at the end means folders only, a slash elsewhere ties the pattern to the root, `**` crosses folders. The last
pattern that matches decides. As in git, what lies in an ignored folder cannot be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

IGNORE_FILE: Final = ".farmignore"

DEFAULT_PATTERNS: Final = (
    ".git", ".hg", ".svn", ".jj", "__pycache__/", "*.py[co]", ".venv/", "venv/", "node_modules/", ".tox/", ".nox/",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".ipynb_checkpoints/", "*.egg-info/",
    ".langgraph_api/", ".farm/", ".idea/", ".vscode/", ".DS_Store", ".env", ".env.*",
)  # fmt: skip
"""`.env` is here because it holds secrets, and a bundle is no place for them."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    takes_back: bool
    folders_only: bool


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules of one folder, in order."""

    rules: tuple[_Rule, ...]

    @classmethod
    def read(cls, file: Path, before: Sequence[str] = ()) -> Self:
        """The patterns `before`, then those of the file if it is there."""
        lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
        return cls.parse([*before, *lines])

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Self:
        """The rules in these lines; empty lines and comments mean nothing."""
        return cls(tuple(rule for line in lines if (rule := _parse(line)) is not None))

    def excludes(self, name: str, *, is_folder: bool) -> bool:
        """Whether a file or folder, named relative to the root with slashes, stays out."""
        excluded = False
        for rule in self.rules:
            if (is_folder or not rule.folders_only) and rule.pattern.fullmatch(name):
                excluded = not rule.takes_back
        return excluded


def _parse(line: str) -> _Rule | None:
    text = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
    if not text or text.startswith("#"):
        return None
    takes_back = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    anchored = "/" in text
    body = _translate(text.removeprefix("/"))
    try:
        pattern = re.compile(body if anchored else f"(?:.*/)?{body}", re.DOTALL)
    except re.error:
        return None  # as in git, a malformed pattern matches nothing
    return _Rule(pattern, takes_back, folders_only)


_TOKEN: Final = re.compile(r"(?:^|(?<=/))\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)


def _translate(pattern: str) -> str:
    return "".join(_token(match[0]) for match in _TOKEN.finditer(pattern))


def _token(token: str) -> str:
    match token:
        case "**/":
            return "(?:.*/)?"
        case "/**":
            return "/.+"
        case "?":
            return "[^/]"
    if token.startswith("*"):
        return "[^/]*"
    if len(token) > 2 and token[0] == "[":
        return _character_class(token[1:-1])
    return re.escape(token[1:] if len(token) == 2 and token[0] == "\\" else token)


def _character_class(inner: str) -> str:
    negated = inner[0] in "!^"
    members = re.sub(r"([\[\\^&~|])", r"\\\1", inner[1:] if negated else inner)
    return f"(?!/)[{'^' if negated else ''}{members}]"
