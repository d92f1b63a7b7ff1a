"""What `farmctl dev` was asked for, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentfarm.errors import InvalidRequest

NODES_MAX: Final = 50
"""More daemons than this on one machine measure the machine, not the farm."""
EXAMPLES: Final = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class DevSettings:
    """The options; `port` None takes the first free one."""

    data_dir: Path = Path(".farm")
    nodes: int = 3
    market: str = "auto"
    questdb_url: str | None = None
    port: int | None = None
    is_once: bool = False
    is_json: bool = False
    is_fresh: bool = False
    examples: Path = EXAMPLES

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise InvalidRequest(f"--nodes must be from 1 to {NODES_MAX}, not {self.nodes}.")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InvalidRequest(f"--port must be from 1 to 65535, not {self.port}.")

    @property
    def node_names(self) -> list[str]:
        """The first holds market data."""
        return [f"node-{number}" for number in range(1, self.nodes + 1)]
