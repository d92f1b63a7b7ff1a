"""One run of one verb: how to speak, which farm is meant, and until when to wait."""

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
    """What every verb is given. The farm is looked for when it is first needed."""

    out: Output
    server: str | None = None
    token_file: Path | None = None
    again: str = ""  # the command that looks again, said when Ctrl-C detaches

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
