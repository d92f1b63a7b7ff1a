"""What was stored when: the places of the capture to which a database can have gone back.

A database that is put back from a copy holds what it held then. How far that was, its tables tell by the numbers of
transactions that they have taken (`nodeagent.market.store.migrate.Database`); this file tells to which place in the
capture such numbers belong. It lies beside the capture, one state a line. Losing it costs only time: then all is stored
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from nodeagent.market.feed.progress import State
from nodeagent.market.model.records import START
from nodeagent.market.model.times import NS
from nodeagent.market.store.endpoint import write_private
from nodeagent.market.store.migrate import Database

FILE_NAME: Final = "stored.ndjson"
NOTE_EVERY_NS: Final = 600 * NS
"""So much more than necessary is stored again."""
LINES_MAX: Final = 4_000
"""Four weeks. A copy that is older is filled from the capture's beginning."""


class Past:
    """The states of one capture."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        lines = self._lines()
        last = _state(lines[-1]) if lines else None
        self._noted_ns = last.at_ns if last is not None else 0
        if len(lines) > LINES_MAX:
            with suppress(OSError):  # it is too long then, which harms nobody
                write_private(self._path, b"\n".join([*lines[-LINES_MAX // 2 :], b""]).decode())

    def note(self, state: State) -> None:
        """Remember an acknowledged state, if the last one is long ago."""
        if state.database is None or 0 <= state.at_ns - self._noted_ns < NOTE_EVERY_NS:
            return
        with suppress(OSError), self._path.open("ab") as file:  # a full disk; the next state will do as well
            file.write(msgspec.json.encode(state) + b"\n")
            self._noted_ns = state.at_ns

    def newest_in(self, found: Database, recent: Iterable[State]) -> State | None:
        """The newest state, of these and of the file, whose rows this database has; None: of none that is known."""
        states = [*recent, *filter(None, map(_state, self._lines()))]
        held = [
            state
            for state in states
            if state.position != START and state.database is not None and found.holds(state.database)
        ]
        return max(held, key=lambda state: state.position, default=None)

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except OSError:
            return []


def _state(line: bytes) -> State | None:
    """A line; None when it is damaged."""
    try:
        return msgspec.json.decode(line, type=State)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
