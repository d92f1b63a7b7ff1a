"""How the daemon logs: the events, names and forms of the controller's log, without its weight.

structlog takes 5 MiB with what it imports, a tenth of the daemon's memory budget, for a few lines a minute. An event is
a fixed name and facts; it is written as one line to standard error, for people or as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PADDING: Final = 26


class Log:
    """One for the process; `configure` is called in main, before anything else."""

    def __init__(self) -> None:
        self._threshold = LEVELS["info"]
        self._is_json = False
        self._stream: TextIO | None = None

    def configure(self, form: str, level: str, stream: TextIO | None = None) -> None:
        """form: console or json. level: debug, info, warning or error. stream: None is standard error."""
        self._is_json = form == "json"
        self._threshold = LEVELS[level]
        self._stream = stream

    def debug(self, event: str, **facts: Any) -> None:
        self.tell("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self.tell("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self.tell("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self.tell("error", event, facts)

    def tell(self, level: str, event: str, facts: Mapping[str, Any]) -> None:
        """Write one event. A log that cannot be written must not stop the daemon."""
        if LEVELS[level] < self._threshold:
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self._is_json:
            line = json.dumps({**facts, "event": event, "level": level, "timestamp": now}, default=str)
        else:
            shown = " ".join(f"{name}={_shown(value)}" for name, value in facts.items())
            line = f"{now} [{level:<7}] {event:<{_PADDING}} {shown}".rstrip()
        try:
            print(line, file=self._stream or sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or "\n" in text or not text else text


log: Final = Log()
