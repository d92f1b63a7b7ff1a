"""A driver of the controller's turns for farms without time: what a step asks for is done at once."""

from __future__ import annotations

from typing import Any, Protocol

from agentfarm.errors import FarmError
from controller import turns
from controller.core.commands import Command
from controller.core.model import FarmState, Instant, Limits, TaskId
from controller.core.transition import Changes, Effect, Transition


class Journal(Protocol):
    """What is durable."""

    def take_lead(self) -> int: ...
    def load(self, limits: Limits, now: Instant) -> FarmState: ...
    def commit(self, changes: Changes, epoch: int) -> None: ...
    def find_keys(self, keys: list[str]) -> dict[str, TaskId]: ...
    def read_inputs(self, ids: list[TaskId]) -> dict[TaskId, bytes]: ...


class Silence:
    """A world in which nobody hears of a turn."""

    def send(self, effects: Any) -> None:
        """Nobody listens."""

    def answer(self, answers: Any) -> None:
        """Nobody listens."""

    def tell(self, transition: Transition, state: FarmState) -> None:
        """Nobody listens."""

    def lead(self, state: FarmState) -> None:
        """Nobody listens."""

    def refused(self, problem: Exception, commands: Any) -> None:
        """Nobody listens."""

    def reset(self, problem: Exception, commands: Any) -> None:
        """Nobody listens."""


class Sent(Silence):
    """A world that keeps the effects, in the order in which they were sent."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []

    def send(self, effects: Any) -> None:
        self.effects += effects


def carry_out(steps: turns.Steps, journal: Journal) -> None:
    """Do what the steps ask for. Raises what the steps raise."""
    work = {
        turns.TakeLead: lambda request: journal.take_lead(),
        turns.Load: lambda request: journal.load(request.limits, request.now),
        turns.FindKeys: lambda request: journal.find_keys(request.keys),
        turns.Commit: lambda request: journal.commit(request.changes, request.epoch),
        turns.ReadInputs: lambda request: journal.read_inputs(request.tasks),
    }
    result: Any = None
    problem: FarmError | None = None
    while True:
        try:
            request = steps.throw(problem) if problem is not None else steps.send(result)
        except StopIteration:
            return
        result = problem = None
        try:
            result = work[type(request)](request)
        except FarmError as refused:
            problem = refused


def one_turn(writer: turns.Turns, journal: Journal, *commands: Command) -> Transition:
    """One turn with these commands. Returns what followed; its answers are there too."""
    carry_out(writer.turn([(command, None) for command in commands]), journal)
    return writer.transition
