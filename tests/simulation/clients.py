"""Simulated clients: they submit, cancel and operate, over a network that may lose the answer.

A client that has an idempotency key repeats its request until it is answered; one without a key asks once and may
never know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentfarm.errors import FarmError, Unavailable
from controller.core.commands import Command, NewTask, SubmitTasks
from controller.core.model import OPERATOR, TaskId
from tests.simulation.checkers import Checkers
from tests.simulation.controllers import Controller
from tests.simulation.world import World

ANSWER_WAIT_S = 4.0
REPEAT_AFTER_S = 0.5


class Clients:
    """All programs and operators of a history."""

    def __init__(self, world: World, controllers: list[Controller], checks: Checkers) -> None:
        self._world = world
        self._controllers = controllers
        self._checks = checks
        self._random = world.chance("clients")
        self.known: list[TaskId] = []
        self.asking = 0  # requests that are repeated until they are answered
        self._keys = 0

    def submit(self, tasks: tuple[NewTask, ...], *, is_repeated: bool) -> None:
        """Submit in one request."""
        keys = [task.options.idempotency_key if task.options is not None else None for task in tasks]

        def answered(answer: Any) -> None:
            if isinstance(answer, FarmError):
                return
            for key, one in zip(keys, answer, strict=True):
                if not isinstance(one, FarmError):
                    self._checks.acknowledged(key, one)
                    self.known.append(one)

        self.request(SubmitTasks(tasks, actor=OPERATOR), answered, is_repeated=is_repeated)

    def request(self, command: Command, answered: Callable[[Any], None], *, is_repeated: bool) -> None:
        """Ask whoever leads."""
        self.asking += is_repeated
        self._try(command, answered, is_repeated)

    def _try(self, command: Command, answered: Callable[[Any], None], is_repeated: bool) -> None:
        is_over = False

        def hear(answer: Any) -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            if isinstance(answer, Unavailable) and is_repeated:
                self._world.at(REPEAT_AFTER_S * self._random.random(), self._try, command, answered, is_repeated)
                return
            self.asking -= is_repeated
            answered(answer)

        def carry(answer: Any) -> None:
            """The answer's way back, on which it may be lost."""
            if self._random.random() < 0.98:
                self._world.at(self._delay_s(), hear, answer)

        leaders = [it for it in self._controllers if it.is_alive and it.state is not None and not it.is_stopped]
        controller = self._random.choice(leaders or self._controllers)
        if controller.is_alive:
            self._world.at(self._delay_s(), controller.soon, controller.ask, command, carry)
            self._world.at(ANSWER_WAIT_S, hear, Unavailable("No answer."))
        else:
            self._world.at(self._delay_s(), hear, Unavailable("Connection refused."))

    def _delay_s(self) -> float:
        return 0.0005 + 0.002 * self._random.random()

    def new_key(self) -> str:
        """An idempotency key."""
        self._keys += 1
        return f"key-{self._keys}"
