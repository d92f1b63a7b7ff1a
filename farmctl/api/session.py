"""One run of one verb: its output, its farm and its clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from farmctl.api.client import FarmClient
from farmctl.api.connection import find_connection
from farmctl.display.console import Output


@dataclass
class Session:
    """What every verb gets. It looks for the farm at the first use."""

    out: Output
    server: str | None = None
    token_file: Path | None = None
    again: str = ""
    """The command that looks again. Ctrl-C detaches and shows it."""

    @cached_property
    def farm(self) -> FarmClient:
        """The gateway."""
        return FarmClient(find_connection(self.server, self.token_file))

    def sleep(self, seconds: float) -> None:
        """Wait before looking again."""
        time.sleep(seconds)

    def mono(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def close(self) -> None:
        """Let go of what was opened."""
        if "farm" in self.__dict__:
            self.farm.close()
