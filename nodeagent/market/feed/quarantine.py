"""What was refused, kept raw with its reason: one JSON line each, in a file that never grows beyond a limit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nodeagent.market.model.events import Reject
from nodeagent.market.model.records import Record

FILE_NAME: Final = "quarantine.ndjson"
FILE_MAX_BYTES: Final = 8 * 1024 * 1024
FRAME_MAX_BYTES: Final = 64 * 1024


class Quarantine:
    """Two files: the present one and the one before it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._bytes = self._path.stat().st_size if self._path.exists() else 0

    def keep(self, rejects: Sequence[Reject], record: Record | None) -> None:
        """Write refusals of one record, the frame once. A disk that does not take them costs them, nothing else."""
        frame = record.payload[:FRAME_MAX_BYTES].decode(errors="backslashreplace") if record else ""
        lines = [
            {
                "at_ns": record.received_at_ns if record else 0,
                "position": record.position if record else 0,
                "reason": reject.reason.value,
                "product": reject.product,
                "detail": reject.detail,
                "frame": frame if number == 0 else "",
            }
            for number, reject in enumerate(rejects)
        ]
        self._write("".join(json.dumps(line) + "\n" for line in lines))

    def keep_row(self, row: object, problem: str) -> None:
        """Write a row that QuestDB refuses."""
        self._write(json.dumps({"reason": "refused_by_questdb", "detail": problem[:1000], "row": repr(row)}) + "\n")

    def _write(self, text: str) -> None:
        try:
            if self._bytes > FILE_MAX_BYTES:
                self._path.replace(self._path.with_suffix(".1.ndjson"))
                self._bytes = 0
            with self._path.open("a") as file:
                file.write(text)
            self._bytes += len(text)
        except OSError:
            return
