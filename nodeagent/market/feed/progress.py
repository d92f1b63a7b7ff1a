"""How far the capture is stored, what a restart needs to continue there, and what was stored when.

`Progress` is a file, saved atomically and durably, and only after QuestDB has taken the rows. So it may be old and is
never ahead: what is replayed twice is stored once. After a power cut QuestDB may have lost rows that it had taken (it
does not wait for the disk), so the file also holds an older state, from before the system's write-back could have been
pending.

`Past` has the places of the capture to which a database can have gone back. A database that is put back from a copy
holds what it held then. Its tables tell how far that was, by the numbers of transactions that they have taken
(`nodeagent.market.store.migrate.Database`); the file `stored.ndjson` tells to which place in the capture such numbers
belong. It lies beside the capture, one state a line. Losing it costs only time: then all is stored again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agentfarm.files import set_aside, write_private
from nodeagent.market.model.records import START, Position
from nodeagent.market.model.times import NS
from nodeagent.market.pipeline.state import Memory
from nodeagent.market.store.migrate import Database
from nodeagent.market.writer.drops import Drops

FILE_NAME: Final = "progress.json"
POWER_CUT_REWIND_S: Final = 120
"""Linux writes dirty pages back after 30 s; four times that is safe and costs a second of replay."""
REWIND_MAX_S: Final = 900
"""A replay begins at the connection's beginning, so that books are whole, if that is not further back than this."""
PAST_NAME: Final = "stored.ndjson"
NOTE_EVERY_NS: Final = 600 * NS
"""So much more than necessary is stored again."""
LINES_MAX: Final = 4_000
"""Four weeks. A copy that is older is filled from the capture's beginning."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class State(msgspec.Struct, frozen=True):
    """How things stood when everything up to `position` had become rows."""

    position: Position = START
    at_ns: int = 0
    """Receipt time of that record."""
    anchor: Position = START
    """The CONNECT record of the oldest connection then open; `position` itself when there was none."""
    anchor_ns: int = 0
    first_open_connection: int = 0
    memory: Memory = msgspec.field(name="known", default=Memory())
    """What the pipeline knew where the replay begins."""
    database: Database | None = None
    """The one that has the rows up to here; None: there was none yet."""
    drops: Drops = ()
    """Rows up to here that were left out, and that the table of such rows does not have yet."""

    def replay_after(self) -> Position | None:
        """Where to begin reading; None: at the very beginning."""
        if self.position == START:
            return None
        if is_near(self.anchor, self.anchor_ns, self.at_ns):
            return Position(self.anchor - 1)
        return self.position


def is_near(anchor: Position, anchor_ns: int, at_ns: int) -> bool:
    """Whether a replay to a record received at `at_ns` begins at the anchor."""
    return anchor != START and at_ns - anchor_ns <= REWIND_MAX_S * NS


class Progress(msgspec.Struct, frozen=True):
    """The file."""

    state: State = State()
    older: State = State()
    """At least POWER_CUT_REWIND_S before `state`, or the very beginning."""
    middle: State = State()
    """On its way to become `older`."""
    last_connection_id: int = 0
    boot_id: str = ""

    def advanced(self, state: State) -> Progress:
        """With a newer state."""
        older, middle = self.older, self.middle
        if state.at_ns - middle.at_ns >= POWER_CUT_REWIND_S * NS:
            older, middle = middle, state
        return msgspec.structs.replace(self, state=state, older=older, middle=middle)

    def restarted_at(self, start: State) -> Progress:
        """Rows after `start` are not stored: another database has taken the place of the one that held them."""
        return Progress(start, start, start, self.last_connection_id, self.boot_id)

    def connected(self, connection_id: int) -> Progress:
        """With this connection id given out; none is given out twice."""
        return msgspec.structs.replace(self, last_connection_id=connection_id)

    def resumed(self, boot_id: str) -> tuple[Progress, State]:
        """The progress of a new process, and the state to continue from: after its restart the older one."""
        state = self.state if boot_id == self.boot_id or not self.boot_id else self.older
        return msgspec.structs.replace(self, state=state, boot_id=boot_id), state


class Past:
    """The states of one capture."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PAST_NAME
        lines = self._lines()
        last = _state(lines[-1]) if lines else None
        self._noted_ns = last.at_ns if last is not None else 0
        if len(lines) > LINES_MAX:
            with suppress(OSError):  # it stays too long then, which does no harm
                write_private(self._path, b"\n".join([*lines[-LINES_MAX // 2 :], b""]))

    def note(self, state: State) -> None:
        """Remember an acknowledged state, if the last one is long ago."""
        if state.database is None or 0 <= state.at_ns - self._noted_ns < NOTE_EVERY_NS:
            return
        with suppress(OSError), self._path.open("ab") as file:  # a full disk; the next state will do as well
            file.write(msgspec.json.encode(state) + b"\n")
            self._noted_ns = state.at_ns

    def newest_in(self, database: Database, recent: Iterable[State]) -> State | None:
        """The newest state, of these and of the file, whose rows this database has; None where there is none."""
        states = [*recent, *filter(None, map(_state, self._lines()))]
        held = [
            state
            for state in states
            if state.position != START and state.database is not None and database.holds(state.database)
        ]
        return max(held, key=lambda state: state.position, default=None)

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except OSError:
            return []


def load(folder: Path, now_s: int) -> Progress:
    """The saved progress; the beginning when there is none. A damaged file is set aside: replaying all is safe.

    now_s: Unix seconds. Without a file they number the connections, so that none is confused with one in the capture.
    """
    path = folder / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress(last_connection_id=now_s)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        set_aside(path)
        return Progress(last_connection_id=now_s)


def save(folder: Path, progress: Progress) -> None:
    """Replace the file, durably. Raises OSError when the disk does."""
    write_private(folder / FILE_NAME, msgspec.json.encode(progress))


def boot_id() -> str:
    """Changes when the machine starts; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _state(line: bytes) -> State | None:
    """A line; None when it is damaged."""
    try:
        return msgspec.json.decode(line, type=State)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
