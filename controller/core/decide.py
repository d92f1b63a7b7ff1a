"""What follows from a batch of commands: the one door into the core.

The order inside a turn: commands as they came, timers that are due, silence of nodes, market products, seats,
placement, dispatch. Products come before placement, so replicas follow their data; dispatch comes last, so a task
accepted in a turn is leased in the same turn and both are one commit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from controller.core.agents import rollouts
from controller.core.agents.room import make_room
from controller.core.agents.seats import place_pending, send_desired
from controller.core.commands import Command
from controller.core.market import feeders as feeding
from controller.core.model import FarmState, Instant
from controller.core.nodes import life as nodes
from controller.core.parts import HANDLERS, TIMERS
from controller.core.tasks import life as tasks
from controller.core.tasks.dispatch import dispatch
from controller.core.tasks.recall import recall_parked
from controller.core.transition import Transition
from controller.core.turn import TIME_PASSES, Turn

TICK_S: Final = 0.25  # the longest the core goes without a turn while nodes are known


def decide(state: FarmState, commands: Sequence[Command], now: Instant) -> Transition:
    """Apply `commands` in order and return everything that follows.

    `state` is changed in place; a caller that cannot commit the returned changes must throw it away. `now.mono` must
    not run backwards. Answers are keyed by the index of their command; a FarmError among them is an answer, not an
    exception.
    """
    turn = Turn(state, now)
    for index, command in enumerate(commands):
        turn.command = command
        turn.out.answers[index] = HANDLERS[type(command)](turn, command)
    turn.command = TIME_PASSES
    _fire_timers(turn)
    nodes.check_silence(turn)
    feeding.assign_products(turn)
    rollouts.reconcile_seats(turn)
    make_room(turn, place_pending(turn))
    rollouts.reconcile_seats(turn)
    dispatch(turn)
    recall_parked(turn)
    tasks.forget_queued_inputs(turn)
    tasks.keep_count(turn)
    for name in turn.desired:
        if name in state.nodes:
            nodes.check_drained(turn, state.nodes[name])
    send_desired(turn)
    turn.flush_messages()
    turn.out.next_due = _next_due(turn)
    return turn.out


def _fire_timers(turn: Turn) -> None:
    timers = turn.state.timers
    while timers and timers[0][0] <= turn.now.mono:
        _, _, timer = heapq.heappop(timers)
        TIMERS[type(timer)](turn, timer)


def _next_due(turn: Turn) -> float:
    state = turn.state
    if state.undispatched:
        return turn.now.mono
    due = turn.now.mono + TICK_S
    return min(due, state.timers[0][0]) if state.timers else due
