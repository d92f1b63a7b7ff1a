"""A history told as it happens: what was done to the farm, what each turn heard, and what followed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from controller.core.commands import NodeBeat, Tick
from controller.core.transition import Transition

if TYPE_CHECKING:
    from tests.simulation.controllers import Controller
    from tests.simulation.history import History
    from tests.simulation.world import World

LINE = 180


def tell(history: History) -> None:
    """Write the story of a history to standard output while it runs."""
    checks, world = history.checks, history.world
    before_turn, decided, happen = checks.before_turn, checks.decided, history.happen

    def telling_before_turn(controller: Controller) -> None:
        commands = [it for it, _ in controller.turns.waiting if not isinstance(it, NodeBeat | Tick)]
        if commands:
            _turn(world, controller)
            for command in commands:
                _line(f"              heard {command}")
        before_turn(controller)

    def telling_decided(controller: Controller, transition: Transition) -> None:
        if transition.changes.events:
            _turn(world, controller)
            for event in transition.changes.events:
                _line(f"              {event.kind}: {event.message}")
        decided(controller, transition)

    def telling_happen(happening: Any) -> None:
        _line(f"{happening}   <<<")
        happen(happening)

    checks.before_turn = telling_before_turn  # type: ignore[method-assign]
    checks.decided = telling_decided  # type: ignore[method-assign]
    history.happen = telling_happen  # type: ignore[method-assign]


def _turn(world: World, controller: Controller) -> None:
    assert controller.state is not None
    _line(f"{world.now:8.3f} s  {controller.name}, epoch {controller.state.epoch}")


def _line(text: str) -> None:
    sys.stdout.write(text.replace("\n", " ")[:LINE] + "\n")
