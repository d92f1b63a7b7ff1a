"""Getting QuestDB ready beside the rest of the start, telling how far its download is.

The finding and downloading is the node's own program; here it is started, followed and read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

COMMAND: Final = (sys.executable, "-m", "nodeagent.market.store.prepare")
MIB: Final = 1024 * 1024
TELL_EVERY: Final = 0.1
"""Of the whole download."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why QuestDB cannot run here, and what to do."""

    problem: str
    remedy: str


class Preparation:
    """The program at work, followed on a thread of its own; `missing` is None when all is there."""

    def __init__(self, say: Callable[[str], None], command: Sequence[str] = COMMAND) -> None:
        self._say = say
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._answer: dict[str, Any] = {}
        assert self._child.stdout is not None  # it is a pipe
        self._thread = threading.Thread(target=self._follow, args=(self._child.stdout,), daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_done(self) -> bool:
        """Whether `missing` can be asked."""
        return not self._thread.is_alive()

    @property
    def missing(self) -> Missing | None:
        """What is not there, once done."""
        if "jar" in self._answer:
            return None
        return Missing(
            str(self._answer.get("problem", "QuestDB could not be prepared.")),
            str(self._answer.get("remedy", "Run: python -m nodeagent.market.store.prepare")),
        )

    def stop(self) -> None:
        """Give up. Safe when done."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self._thread.join(1.0)

    def _follow(self, lines: IO[str]) -> None:
        shown = 0.0
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if "total_bytes" not in report:
                self._answer = report
                continue
            done, total = int(report["done_bytes"]), int(report["total_bytes"])
            share = done / total if total else 0.0
            if share - shown >= TELL_EVERY or not shown:
                shown = max(share, 1e-9)
                self._say(f"downloading QuestDB: {done // MIB} of {total // MIB} MiB")
        self._child.wait()
