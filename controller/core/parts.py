"""A part of the core: what a subject (tasks, agents, nodes, market) does when it is asked, and when time comes.

Each subject has one Part value, in the `part` module of its folder. `decide` makes its tables of all of them, and
keeps the order of a turn itself, as one visible list: what a part does in each turn is a line there, not a hook here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.core.turn import Turn

Handler = Callable[[Turn, Any], object]


@dataclass(frozen=True, slots=True)
class Part:
    """One subject."""

    name: str
    commands: Mapping[type[Any], Handler]
    """Kinds of commands, and what answers each."""
    timers: Mapping[type[Any], Handler] = field(default_factory=dict)
    """Kinds of timers, and what each does when it is due."""


def handlers(tables: Iterable[Mapping[type[Any], Handler]]) -> dict[type[Any], Handler]:
    """The union. Raises ValueError where two parts handle the same kind."""
    union: dict[type[Any], Handler] = {}
    for table in tables:
        if twice := union.keys() & table.keys():
            raise ValueError(f"Two parts handle {sorted(kind.__name__ for kind in twice)}.")
        union |= table
    return union
