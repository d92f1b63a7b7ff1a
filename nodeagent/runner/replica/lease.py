"""How a replica of exclusive work minds the node's lease. Pure: the moment is an argument.

The daemon ends exclusive attempts when the lease is over. Where it cannot (it is dead, or stopped), the replica does:
the end of the lease is a moment on the machine's clock, and no message needs to say so.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

KILL_AFTER_S: Final = 0.5
"""After the end of the lease (six seconds after the beat that renewed it), and half a second to look: below the eight
after which the controller gives a silent node's work to others."""


class Verdict(Enum):
    """What follows for the attempts in hand."""

    GO_ON = "go on"
    CANCEL = "cancel"
    KILL = "kill"


class ReplicaLease:
    """Over until the daemon says otherwise. Attempts that are not exclusive need none."""

    __slots__ = ("_is_exclusive", "until_s")

    def __init__(self, is_exclusive: bool) -> None:
        self._is_exclusive = is_exclusive
        self.until_s = 0.0
        """The end, on the machine's monotonic clock."""

    @property
    def is_needed(self) -> bool:
        """Whether attempts may run only while it holds."""
        return self._is_exclusive

    def renewed(self, until_s: float) -> None:
        """The daemon says that it holds until then."""
        self.until_s = max(self.until_s, until_s)

    def is_over(self, now: float) -> bool:
        """Whether the controller may have given what waits here to others: then it must not begin."""
        return self._is_exclusive and now >= self.until_s

    def look(self, now: float, *, has_work: bool) -> Verdict:
        """What must happen now to the attempts in hand. Asked again and again."""
        if not has_work or not self.is_over(now):
            return Verdict.GO_ON
        return Verdict.KILL if now - self.until_s > KILL_AFTER_S else Verdict.CANCEL
