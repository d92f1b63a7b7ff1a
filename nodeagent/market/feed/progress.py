"""How far the capture is stored, and what a restart needs to go on from there.

Saved atomically and durably, and only after QuestDB has taken the rows, so it may be old and is never ahead: what is
replayed twice is stored once. After a power cut QuestDB may have lost rows that it had taken (it does not wait for
the disk), so the file also holds an older state, from before the system's write-back could have been pending.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from nodeagent.market.model.records import START, Position
from nodeagent.market.pipeline.state import Memory
from nodeagent.market.store.endpoint import write_private
from nodeagent.market.store.migrate import Database
from nodeagent.market.writer.drops import Drops

FILE_NAME: Final = "progress.json"
POWER_CUT_REWIND_S: Final = 120
"""Linux writes dirty pages back after 30 s; four times that is safe and costs a second of replay."""
REWIND_MAX_S: Final = 900
"""A replay begins at the connection's beginning, so that books are whole, if that is not further back than this."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class State(msgspec.Struct, frozen=True):
    """What was true when everything up to `position` had become rows."""

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
    """Rows up to here that were left out, and are not in its table of them yet."""

    def replay_after(self) -> Position | None:
        """Where to begin reading; None: at the very beginning."""
        if self.position == START:
            return None
        if is_near(self.anchor, self.anchor_ns, self.at_ns):
            return Position(self.anchor - 1)
        return self.position


def is_near(anchor: Position, anchor_ns: int, at_ns: int) -> bool:
    """Whether a replay to a record received at `at_ns` begins at the anchor."""
    return anchor != START and at_ns - anchor_ns <= REWIND_MAX_S * 1_000_000_000


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
        if state.at_ns - middle.at_ns >= POWER_CUT_REWIND_S * 1_000_000_000:
            older, middle = middle, state
        return msgspec.structs.replace(self, state=state, older=older, middle=middle)

    def begun_anew(self, start: State) -> Progress:
        """What came after `start` is not stored: another database is in the place of the one that held the rows."""
        return Progress(start, start, start, self.last_connection_id, self.boot_id)

    def connected(self, connection_id: int) -> Progress:
        """With a connection id given out: it is never given out again."""
        return msgspec.structs.replace(self, last_connection_id=connection_id)

    def resumed(self, boot_id: str) -> tuple[Progress, State]:
        """The progress of a new process, and the state to go on from: the older one when the machine was restarted."""
        state = self.state if boot_id == self.boot_id or not self.boot_id else self.older
        return msgspec.structs.replace(self, state=state, boot_id=boot_id), state


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
        path.replace(path.with_suffix(".damaged"))
        return Progress(last_connection_id=now_s)


def save(folder: Path, progress: Progress) -> None:
    """Replace the file, durably. Raises OSError when the disk does."""
    write_private(folder / FILE_NAME, msgspec.json.encode(progress).decode())


def boot_id() -> str:
    """Changes when the machine starts; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
