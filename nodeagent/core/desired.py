"""From the list of replicas that should be here, and those that are, to what must be done. Pure; applying it twice
changes nothing the second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from agentfarm.wire import link_pb2 as wire


class Presence(Enum):
    """How far a replica that is here has come."""

    ACTIVE = "active"
    """Being prepared, running, or waiting for a restart."""
    RETIRING = "retiring"
    """Finishes what it has, then stops."""
    STOPPING = "stopping"
    ENDED = "ended"
    """No process remains; we only remember how it ended."""


@dataclass(frozen=True, slots=True)
class SeatPlan:
    """What to do, each by replica id; `start` with what was asked for."""

    start: tuple[wire.DesiredReplica, ...] = ()
    retire: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    forget: tuple[int, ...] = ()
    report_stopped: tuple[int, ...] = ()
    """Asked to stop here, but never were, or are long gone: say so."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.start or self.retire or self.stop or self.forget)


def plan_seats(desired: Sequence[wire.DesiredReplica], present: Mapping[int, Presence]) -> SeatPlan:
    """Compare. A replica that ended stays ended: the controller places a new one, with a new id, if it wants one."""
    listed = {item.replica_id: item for item in desired}
    start, retire, stopped = [], [], []
    for replica_id, item in listed.items():
        presence = present.get(replica_id)
        if presence is None and item.stopping:
            stopped.append(replica_id)
        elif presence is None:
            start.append(item)
        elif presence is Presence.ACTIVE and item.stopping:
            retire.append(replica_id)
    unlisted = [(replica_id, presence) for replica_id, presence in present.items() if replica_id not in listed]
    return SeatPlan(
        start=tuple(start),
        retire=tuple(retire),
        stop=tuple(i for i, presence in unlisted if presence in (Presence.ACTIVE, Presence.RETIRING)),
        forget=tuple(i for i, presence in unlisted if presence is Presence.ENDED),
        report_stopped=tuple(stopped),
    )
