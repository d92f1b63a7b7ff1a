"""What farmctl says: words and tables to people, JSON to programs, progress to either."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from agentfarm.errors import FarmError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH: Final = 160
"""Columns where no person looks: wide enough that nothing is cut."""


class Output:
    """One run's way of speaking.

    is_json: one JSON value on stdout, nothing else. is_events: NDJSON progress on stdout. Neither: words on stdout,
    progress on stderr.
    """

    def __init__(self, *, is_json: bool = False, is_events: bool = False) -> None:
        self.is_json = is_json
        self.is_events = is_events
        self._last_said = ""

    @property
    def is_for_people(self) -> bool:
        """Whether a person reads."""
        return not (self.is_json or self.is_events)

    def result(self, value: Any, say: Callable[[], None] | None = None) -> None:
        """The outcome: JSON for programs, else what `say` prints."""
        if self.is_events:
            self._write({"event": "result", "result": value})
        elif self.is_json:
            self._write(value, is_pretty=sys.stdout.isatty())
        elif say is not None:
            say()

    def event(self, kind: str, text: str = "", **data: Any) -> None:
        """One step of progress: an NDJSON line with --events, a dim line for people, nothing with --json alone."""
        if self.is_events:
            self._write({"event": kind} | data | ({"message": text} if text else {}))
        elif not self.is_json and text and text != self._last_said:
            self._last_said = text  # printed once, however often it is reported
            self.errors.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def say(self, text: RenderableType = "", style: str | None = None) -> None:
        """Words or a table for people."""
        if self.is_for_people:
            self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=isinstance(text, str))

    def line(self, text: str) -> None:
        """A line of another program's text, as it is."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def json_line(self, value: Any) -> None:
        """One NDJSON line."""
        self._write(value)

    def problem(self, error: FarmError) -> None:
        """An error: words on stderr, or a JSON object on stdout."""
        if self.is_for_people:
            self.errors.print(f"farmctl: {error.problem}", style="red", highlight=False, markup=False, soft_wrap=True)
            if error.remedy:
                self.errors.print(error.remedy, highlight=False, markup=False, soft_wrap=True)
            return
        problem = {"code": error.code, "detail": error.problem, "remedy": error.remedy} | error.data
        self._write({"event": "problem", "problem": problem} if self.is_events else {"problem": problem})

    @cached_property
    def console(self) -> Console:
        """Where people read."""
        return _console(is_stderr=False)

    @cached_property
    def errors(self) -> Console:
        """Where people read of progress and errors."""
        return _console(is_stderr=True)

    def _write(self, value: Any, *, is_pretty: bool = False) -> None:
        text = json.dumps(value, ensure_ascii=False, default=str, indent=2 if is_pretty else None)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _console(*, is_stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that programs need not wait for

    stream = sys.stderr if is_stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=is_stderr, width=width, soft_wrap=False)
