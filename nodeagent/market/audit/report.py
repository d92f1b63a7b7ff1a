"""What these programs say while they work and at the end: NDJSON, one object a line, each with its `event`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from nodeagent.market.audit.trades import utc_text
from nodeagent.market.feed.progress import State

PROGRESS_EVERY_S: Final = 1.0
LOOK_EVERY: Final = 200
"""Records between two looks at the clock."""

Tell = Callable[[str, Mapping[str, Any]], None]


class Teller:
    """Writes lines to stdout as they come; progress at most once a second. A reader that is gone ends the program."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._first_ns = 0

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        if event == "progress":
            now_s = time.monotonic()
            if now_s < self._next_s:
                return
            self._next_s = now_s + PROGRESS_EVERY_S
            facts = self._with_share(facts)
        sys.stdout.write(json.dumps({"event": event, **facts}, default=str) + "\n")
        sys.stdout.flush()

    def _with_share(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """How much is done, by receipt times, where the end is known."""
        at_ns, end_ns = facts["at_ns"], facts["end_ns"]
        self._first_ns = self._first_ns or at_ns
        line: dict[str, Any] = {"records": facts["records"]}
        if at_ns:
            line["at"] = utc_text(at_ns // 1000)
        if end_ns > self._first_ns:
            line["share"] = round(min(1.0, max(0.0, (at_ns - self._first_ns) / (end_ns - self._first_ns))), 3)
        return line


def progress(tell: Tell, records: int, at_ns: int, state: State | None) -> None:
    """Say how far a reading is, once in a while."""
    if records % LOOK_EVERY == 1:
        tell("progress", {"records": records, "at_ns": at_ns, "end_ns": state.at_ns if state is not None else 0})
