"""The parts of the core, and what they are together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from controller.core.agents.part import AGENTS
from controller.core.commands import Tick
from controller.core.market.part import MARKET
from controller.core.nodes.part import NODES
from controller.core.records import Table
from controller.core.tasks.part import TASKS
from controller.core.turn import Handler, Part

PARTS: Final[tuple[Part, ...]] = (NODES, MARKET, AGENTS, TASKS)


def union(tables: Iterable[Mapping[type[Any], Handler]]) -> dict[type[Any], Handler]:
    """One table of many. Raises ValueError where two of them handle the same kind."""
    whole: dict[type[Any], Handler] = {}
    for table in tables:
        if twice := whole.keys() & table.keys():
            raise ValueError(f"Two parts handle {sorted(kind.__name__ for kind in twice)}.")
        whole |= table
    return whole


HANDLERS: Final = union([*(part.commands for part in PARTS), {Tick: lambda turn, command: None}])
"""What answers each kind of command."""
TIMERS: Final = union(part.timers for part in PARTS)
"""What each kind of timer does when it is due."""
TABLES: Final[tuple[Table[Any], ...]] = tuple(table for part in PARTS for table in part.tables)
"""Where the records of each kind are stored: for both journals, the check of the schema, and the law."""
TABLE_OF: Final[dict[type[Any], Table[Any]]] = {table.kind: table for table in TABLES}
