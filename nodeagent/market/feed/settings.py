"""The settings of a feed process, as one validated value. The daemon writes it as JSON; nothing else is read from
outside."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.source import Channel

_PATHS: Final = ("capture_dir", "endpoint_file", "status_file", "questdb_dir", "credentials_file", "recording")
RECORDED: Final = "capture"
"""The source that plays a recording."""


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """One feed: a source, its products, where things lie. Empty URLs mean the venue's own."""

    source: str
    products: tuple[str, ...]
    """None is fine: then it waits, without a connection, for settings that name some (SIGHUP: read them again)."""
    capture_dir: Path
    """Holds the capture, the acknowledged position and the quarantine. One feed process a folder."""
    endpoint_file: Path
    """Address and passwords of the node's QuestDB, as `QuestDBServer.endpoint_file` names it; read again after a
    loss."""
    status_file: Path
    """Rewritten atomically every second."""
    channels: tuple[str, ...] = ()
    """Names of `Channel`; empty: the source's default."""
    ws_url: str = ""
    rest_url: str = ""
    questdb_dir: Path | None = None
    """The server's folder, to judge its disk too; None when it is elsewhere."""
    credentials_file: Path | None = None
    """The venue's key, for channels that need one; its form is in `nodeagent.market.venues.credentials`."""
    recording: Path | None = None
    """With source `capture`: the file to play, of any known format, or a folder of segments. Played once a start."""
    speed: float = 1.0
    """Of the recording: 1 as it happened, 0 as fast as it goes."""
    metrics_port: int = 0
    """Loopback; 0 chooses one, which the status names."""
    connections: int = 1
    """2: a hot spare; what both bring is stored once."""
    book_depth: int = 50
    every_change: bool = False
    """Store every level change too (table book_change)."""
    book_check_interval_s: float = 300.0
    flush_interval_s: float = 0.15
    flush_rows_max: int = 5_000
    fsync_interval_s: float = 1.0
    """At most so much of the capture is lost in a power cut; its trades are asked for again over REST."""
    queue_max: int = 20_000
    reconnect_min_s: float = 0.25
    reconnect_max_s: float = 5.0
    silence_max_s: float = 0.0
    """0: what the source promises."""
    keep_books_interval_s: float = 600.0
    """How often trusted books are written into the capture: a restart replays from the last such place."""
    capture_max_bytes: int = 20 * 1024**3
    """Segments that are stored are deleted beyond this, oldest first."""
    disk_low_bytes: int = 2 * 1024**3
    stop_within_s: float = 8.0

    def __post_init__(self) -> None:
        """Check what cannot work. Raises InvalidRequest, naming the key."""
        unknown = sorted(set(self.channels) - set(Channel))
        checks = (
            (not unknown, "channels", f"has unknown names {unknown}; known: {', '.join(Channel)}"),
            ((self.source == RECORDED) == (self.recording is not None), "recording", "goes with source: capture"),
            (self.speed >= 0, "speed", "must not be negative"),
            (self.recording is None or self.connections == 1, "connections", "must be 1 for a recording"),
            (1 <= self.connections <= 4, "connections", "must be 1 to 4"),
            (0 < self.flush_interval_s <= 10, "flush_interval_s", "must be above 0 and at most 10"),
            (0.1 <= self.keep_books_interval_s <= 800, "keep_books_interval_s", "must be 0.1 to 800"),
            (self.fsync_interval_s > 0, "fsync_interval_s", "must be above 0"),
            (0 < self.reconnect_min_s <= self.reconnect_max_s, "reconnect_min_s", "must not exceed reconnect_max_s"),
            (
                self.reconnect_min_s >= 0.125,
                "reconnect_min_s",
                "must be 0.125 or more: venues allow 8 connections a second",
            ),
            (1 <= self.book_depth <= 1000, "book_depth", "must be 1 to 1000"),
        )
        for is_right, key, problem in checks:
            if not is_right:
                raise InvalidRequest(f"feed setting {key} {problem}.")

    def to_json(self) -> str:
        """As `from_json` reads it."""
        values = asdict(self) | {name: str(value) for name in _PATHS if (value := getattr(self, name)) is not None}
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read settings. Raises InvalidRequest, naming what is wrong."""
        try:
            values: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"the feed's settings are not JSON: {error}.") from error
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise InvalidRequest(f"unknown feed settings {unknown}; known: {', '.join(sorted(names))}.")
        for name in _PATHS:
            if values.get(name) is not None:
                values[name] = Path(values[name])
        for name in ("products", "channels"):
            if name in values:
                values[name] = tuple(values[name])
        try:
            return cls(**values)
        except TypeError as error:
            raise InvalidRequest(f"the feed's settings are incomplete: {error}.") from error
