"""A history told as it happens: what was done to the farm, what each turn heard, and what followed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from controller.core.commands import NodeBeat, Tick
from controller.core.transition import Transition

if TYPE_CHECKING:
    from tests.simulation.controllers import Controller
    from tests.simulation.history import History

LINE = 180


def tell(history: History) -> None:
    """Write the story of a history to standard output while it runs."""
    checks, world = history.checks, history.world
    decided, happen = checks.decided, history.happen

    def telling_decided(controller: Controller, transition: Transition) -> None:
        commands = [it for it, _ in controller.batch if not isinstance(it, NodeBeat | Tick)]
        events = transition.changes.events
        if commands or events:
            assert controller.state is not None
            _line(f"{world.now:8.3f} s  {controller.name}, epoch {controller.state.epoch}")
            for command in commands:
                _line(f"              heard {command}")
            for event in events:
                _line(f"              {event.kind}: {event.message}")
        decided(controller, transition)

    def telling_happen(happening: Any) -> None:
        _line(f"{happening}   <<<")
        happen(happening)

    checks.decided = telling_decided  # type: ignore[method-assign]
    history.happen = telling_happen  # type: ignore[method-assign]


def _line(text: str) -> None:
    sys.stdout.write(text.replace("\n", " ")[:LINE] + "\n")
