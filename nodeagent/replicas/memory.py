"""What a seat leaves for the next daemon, in `seat.json` of its folder: what it should be, and how it has ended."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.files import write_file
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.seat import Seat

SEAT_NAME: Final = "seat.json"


@dataclass(frozen=True, slots=True)
class Memory:
    """A seat as it was written down."""

    desired: wire.DesiredReplica
    restarts: int
    environment: str
    zygote: str
    ended: wire.ReplicaStatus | None


def write_memory(folder: Path, seat: Seat) -> None:
    """Write it down. On a full disk it is not written: then the next daemon hears of the seat from the controller."""
    memory: dict[str, Any] = {
        "wanted": seat.desired.SerializeToString().hex(),
        "restarts": seat.status.restarts,
        "environment": seat.environment,
        "zygote": seat.zygote,
    }
    if seat.presence is Presence.ENDED:
        memory["ended"] = seat.status.SerializeToString().hex()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / SEAT_NAME, json.dumps(memory).encode(), is_durable=False)


def read_memory(folder: Path) -> Memory | None:
    """What an earlier daemon left in a folder; None when it says nothing of use."""
    try:
        data = json.loads((folder / SEAT_NAME).read_text())
        return Memory(
            desired=wire.DesiredReplica.FromString(bytes.fromhex(data["wanted"])),
            restarts=int(data["restarts"]),
            environment=data.get("environment", ""),
            zygote=data.get("zygote", ""),
            ended=wire.ReplicaStatus.FromString(bytes.fromhex(data["ended"])) if "ended" in data else None,
        )
    except Exception:
        return None
