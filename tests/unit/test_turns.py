"""The order of a turn, as a transcript: what the writer asks for, and what it says to whom, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agentfarm.errors import FarmError, Unavailable
from controller import turns
from controller.core.commands import AddNode, Command, Deploy, NewTask, NodeBeat, NodeJoined, SubmitTasks
from controller.core.model import OPERATOR, DeploymentName, FarmState, Limits, NodeName, TaskOptions
from controller.core.policy import Policy
from controller.core.transition import Effect, Transition
from controller.journal.errors import LostLead
from controller.metrics import EngineMetrics

AGENT, NODE = DeploymentName("echo"), NodeName("n1")
NOBODY: frozenset[Any] = frozenset()
SUBMIT = SubmitTasks((NewTask(AGENT, b"1", None, TaskOptions(idempotency_key="k")),), actor=OPERATOR)
JOINED = NodeJoined(NODE, 1, "1", 4000, 4096, 0, {}, NOBODY, NOBODY, None, (), NOBODY, NOBODY)


class Stage:
    """A writer whose every request is answered by hand. It hears all that the writer says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.mono = 100.0
        self.writer = turns.Turns(self, Limits(), EngineMetrics(), mono=lambda: self.mono, wall=lambda: self.mono)
        self.life = self.writer.life()
        self.note(next(self.life))
        self.give(1)
        self.give(FarmState(1, Limits(), next_token=1 << 40))
        self.lines.clear()

    def note(self, request: turns.Request) -> None:
        detail = f" {request.seconds:g}" if isinstance(request, turns.Pause) and request.problem is None else ""
        self.lines.append(type(request).__name__ + detail)

    def give(self, result: Any = None) -> None:
        """The request is done."""
        self.note(self.life.throw(result) if isinstance(result, Exception) else self.life.send(result))

    def do(self, *commands: Command) -> list[str]:
        """Ask for these, then answer all that follows up to the next rest. Returns the lines."""
        for command in commands:
            self.writer.ask(command, type(command).__name__)
        self.lines.clear()
        self.give()
        while self.lines[-1] != "Rest":
            self.give({} if self.lines[-1] == "FindKeys" else None)
        return self.lines

    def send(self, effects: Sequence[Effect]) -> None:
        self.lines.append("send " + " ".join(type(effect).__name__ for effect in effects))

    def answer(self, answers: Sequence[tuple[str, object]]) -> None:
        self.lines += [f"answer {name}: {type(answer).__name__}" for name, answer in answers]

    def tell(self, transition: Transition, state: FarmState) -> None:
        self.lines.append(f"tell {len(transition.changes.events)} events")

    def lead(self, state: FarmState) -> None:
        self.lines.append("lead")

    def refused(self, problem: Exception, commands: Sequence[Command]) -> None:
        self.lines.append(f"refused: {' '.join(type(command).__name__ for command in commands)}")

    def reset(self, problem: Exception, commands: Sequence[Command]) -> None:
        self.lines.append(f"reset {type(problem).__name__}: {' '.join(type(command).__name__ for command in commands)}")


def led_stage() -> Stage:
    stage = Stage()
    stage.do(AddNode(NODE, actor=OPERATOR), Deploy(AGENT, "sha256:0", "{}", Policy(), actor=OPERATOR))
    return stage


@pytest.fixture
def stage() -> Stage:
    return led_stage()


def test_nodes_hear_first_then_callers_then_watchers(stage: Stage) -> None:
    assert stage.do(JOINED) == ["Commit", "send SetDesired", "answer NodeJoined: NoneType", "tell 2 events", "Rest"]


def test_keys_are_looked_up_inside_the_turn_that_decides(stage: Stage) -> None:
    assert stage.do(SUBMIT) == ["FindKeys", "Commit", "answer SubmitTasks: list", "tell 0 events", "Rest"]


def test_a_turn_that_changes_nothing_is_not_committed_until_the_lead_must_be_proven(stage: Stage) -> None:
    prove_the_lead(stage)


def prove_the_lead(stage: Stage) -> None:
    """A story of beats alone; also told under a mutant."""
    stage.do(JOINED)
    beat = NodeBeat(NODE, 1, 1)
    lines = ["send AckBeat", "answer NodeBeat: NoneType", "tell 0 events", "Rest"]
    assert stage.do(beat) == lines
    stage.mono += turns.LEAD_CHECK_S + 0.1
    assert stage.do(beat) == ["Commit", *lines]
    assert stage.do(beat) == lines


@pytest.mark.parametrize("problem", [Unavailable("It is away."), LostLead("Another leads.", epoch=1)])
def test_nothing_of_a_failed_turn_is_sent_or_told(stage: Stage, problem: Exception) -> None:
    stage.writer.ask(JOINED, "node")
    stage.lines.clear()
    stage.give()
    stage.writer.ask(SUBMIT, "program")  # it waits while the commit is in flight
    stage.give(problem)
    assert stage.lines == [
        "Commit",
        f"reset {type(problem).__name__}: NodeJoined",
        "answer node: Unavailable",
        "answer program: Unavailable",
        "Pause 0",
    ]
    assert stage.writer.state is None
    with pytest.raises(Unavailable):
        stage.writer.ask(SUBMIT, "program")


def test_a_reset_is_followed_by_a_new_lead(stage: Stage) -> None:
    stage.writer.ask(JOINED, "node")
    stage.give()
    stage.give(Unavailable("It is away."))
    stage.lines.clear()
    stage.give()
    stage.give(Unavailable("It is still away."))
    stage.give()
    stage.give(2)
    stage.give(FarmState(2, Limits(), next_token=2 << 40))
    assert stage.lines == ["TakeLead", "Pause", "TakeLead", "Load", "lead", "Rest"]


def test_a_writer_that_stops_does_not_lead_again(stage: Stage) -> None:
    stage.writer.ask(JOINED, "node")
    stage.give()
    stage.writer.is_stopping = True
    stage.lines.clear()
    with pytest.raises(StopIteration):
        stage.life.throw(FarmError("The database is gone."))
    assert stage.lines == ["reset FarmError: NodeJoined", "answer node: Unavailable"]
