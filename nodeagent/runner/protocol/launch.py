"""The start of a replica: the one value it gets, JSON between daemon and zygote, and what names its process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

SOCKET_NAME = "socket"
LOG_NAME = "log"
PROCESS_NAME = "process.json"
EXIT_NAME = "exit.json"
SLOTS_NAME = "running"


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything one replica process needs to know. `folder` is its own, `bundle` the agent's unpacked files."""

    replica_id: int
    deployment: str
    seat: int
    version: int
    node: str
    folder: str
    bundle: str
    entry: str | None = None
    concurrency: int = 1
    memory_mib: int = 128
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set before the agent is imported: equal for all replicas of a version."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables that only the replica has."""
    payload_bytes_max: int = 2**20
    log_bytes_max: int = 8 * 2**20
    open_files_max: int = 4_096
    is_exclusive: bool = False
    """Its attempts must end before the controller could give them to others, even if the daemon dies."""
    loads_agent: bool = False
    """The agent is loaded in the replica itself, because its import starts threads and cannot be forked."""

    @property
    def home(self) -> Path:
        """The replica's folder."""
        return Path(self.folder)

    @property
    def ends_with_zygote(self) -> bool:
        """Whether the kernel ends it with its zygote: nothing else does, where it stands still beside a dead daemon."""
        return self.is_exclusive

    def to_json(self) -> str:
        """For the wire."""
        return json.dumps(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Unknown keys are left alone: the daemon may be newer than the zygote that it found."""
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**fields)


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0: there is none.

    A pid alone can be given to another process. Pid and start together name one process and no later one.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
