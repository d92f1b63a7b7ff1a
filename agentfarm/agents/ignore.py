"""Which files of a folder stay out of a bundle: a built-in list, then the folder's own `.farmignore`.

The patterns are those of `.gitignore` (source: the page gitignore(5)), as the library pathspec reads them. The last
pattern that matches decides. As in git, what lies in an ignored folder cannot be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

IGNORE_FILE: Final = ".farmignore"

DEFAULT_PATTERNS: Final = (
    ".git", ".hg", ".svn", ".jj", "__pycache__/", "*.py[co]", ".venv/", "venv/", "node_modules/", ".tox/", ".nox/",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".ipynb_checkpoints/", "*.egg-info/",
    ".langgraph_api/", ".farm/", ".idea/", ".vscode/", ".DS_Store", ".env", ".env.*",
)  # fmt: skip
"""`.env` is here because it holds secrets, and a bundle is no place for them."""


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules of one folder, in order."""

    spec: GitIgnoreSpec

    @classmethod
    def read(cls, file: Path, before: Sequence[str] = ()) -> Self:
        """The patterns `before`, then those of the file if it is there."""
        lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
        return cls.parse([*before, *lines])

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Self:
        """The rules in these lines; empty lines, comments and malformed patterns mean nothing."""
        from pathspec import GitIgnoreSpec  # noqa: PLC0415 - nodes unpack bundles, and never read this

        return cls(GitIgnoreSpec([pattern for line in lines for pattern in _patterns(line)]))

    def excludes(self, name: str, *, is_folder: bool) -> bool:
        """Whether a file or folder, named relative to the root with slashes, stays out."""
        return self.spec.match_file(f"{name}/" if is_folder else name)


def _patterns(line: str) -> Sequence[GitIgnoreSpecPattern]:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - see above

    try:
        return tuple(GitIgnoreSpec.from_lines([line]).patterns)
    except (ValueError, re.error):
        return ()  # as in git, a malformed pattern matches nothing
