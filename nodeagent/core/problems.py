"""What can go wrong on a node, as exceptions: a replica that does not start, a link that is away."""

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


class BundleMissing(Exception):
    """The controller has no bundle of this digest."""


class LinkAway(Exception):
    """The controller cannot be asked now."""
