"""Why a replica cannot be started, in the words of the contract."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "import_failed", "environment_failed", "bundle_failed", "crashed", "crash_loop", "unhealthy", "out_of_memory"
]


class StartFailed(Exception):
    """A replica did not come up. `is_final`: trying again would change nothing; otherwise it is tried until it does."""

    def __init__(self, reason: Reason, detail: str, *, is_final: bool) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.is_final = is_final
