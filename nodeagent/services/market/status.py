"""How the feed does, by its status file, and how that is said to the controller."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

UNCONNECTED_MAX_S: Final = 15.0
STALE_AFTER_S: Final = 10.0
"""A status file not rewritten for this long is no news."""


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """The market at one moment."""

    state: str = ""
    rows: int = 0
    lag_ms: int = 0
    feed: Mapping[str, Any] | None = None
    """The feed's own status."""


class FeedStatus:
    """The feed's status file, parsed only when it was rewritten. kind: live, simulated or capture."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._stamp = 0
        self._content: dict[str, Any] | None = None
        self._unconnected_since: float | None = None

    def read(self) -> dict[str, Any] | None:
        """The newest status; None when there is none worth believing."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._content = json.loads(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError):
            self._content = None
        if self._content is not None and time.time_ns() - self._stamp > STALE_AFTER_S * 1e9:
            return {**self._content, "is_connected": False, "is_stale": True}
        return self._content

    def pid(self) -> int | None:
        """The process that wrote it, if it may still live."""
        content = self.read()
        pid = int(content.get("pid", 0)) if content else 0
        return pid if pid and os.path.exists(f"/proc/{pid}") else None

    def forget(self) -> None:
        """The process that wrote it is gone, so what it wrote is no news any more."""
        self._path.unlink(missing_ok=True)
        self._content, self._stamp = None, 0

    def state(self, content: Mapping[str, Any]) -> str:
        """A status in a word, after ":" in more words."""
        return _disk_state(content) or self._feed_state(content)

    def _feed_state(self, content: Mapping[str, Any]) -> str:
        now = time.monotonic()
        if content.get("state") == "idle":
            return "idle"  # it has no products
        if content.get("is_connected"):
            self._unconnected_since = None
            return self._kind
        if content.get("state") == "over":
            return f"{self._kind}: the recording is over"
        self._unconnected_since = self._unconnected_since or now
        if now - self._unconnected_since < UNCONNECTED_MAX_S:
            return self._kind if content.get("connects") else "starting"
        return "failed: the feed is not connected to its venue"


def _disk_state(content: Mapping[str, Any]) -> str:
    """What the feed says of a disk that is low or full, which comes before all else; empty while there is room."""
    disk = content.get("disk", "ok")
    if disk == "ok":
        return ""
    words = [text for text in content.get("problems", ()) if text.startswith("the disk is ")]
    return f"{'failed' if disk == 'full' else 'degraded'}: {words[0] if words else f'the disk is {disk}'}"
