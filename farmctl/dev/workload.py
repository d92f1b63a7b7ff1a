"""A gentle load on the example agents, so that a new farm has something to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentfarm.errors import FarmError
from farmctl.api.client import FarmClient

QUESTION_AGENT: Final = "question-answering"
BRIEF_AGENT: Final = "market-brief"
QUESTION_EVERY_S: Final = 3.0
BRIEF_EVERY_S: Final = 10.0
QUESTIONS: Final = (
    "What is a lease?",
    "What is a fencing token?",
    "How do I deploy an agent?",
    "What happens to a task when its node dies?",
    "What is a replica?",
    "How do I drain a node?",
    "Where do checkpoints go?",
    "What is a deployment?",
    "Who owns market history?",
    "How do I roll back?",
    "What does backoff mean?",
    "What is a heartbeat?",
)
LABELS: Final = {"from": "farmctl-dev"}


@dataclass(frozen=True, slots=True)
class Due:
    """What to submit now."""

    agent: str
    input: dict[str, Any]


class Rhythm:
    """Decides what is due; knows no gateway and no clock."""

    def __init__(self, agents: Sequence[str], products: Sequence[str]) -> None:
        self._agents = set(agents)
        self._products = list(products)
        self._questions = 0
        self._briefs = 0
        self._next_question_s = 0.0
        self._next_brief_s = 0.0

    def due(self, now_s: float, has_trades: bool) -> list[Due]:
        """The tasks to submit now. Tasks that were missed are not submitted later."""
        tasks = []
        if QUESTION_AGENT in self._agents and now_s >= self._next_question_s:
            tasks.append(Due(QUESTION_AGENT, {"question": QUESTIONS[self._questions % len(QUESTIONS)]}))
            self._questions += 1
            self._next_question_s = now_s + QUESTION_EVERY_S
        if BRIEF_AGENT in self._agents and has_trades and self._products and now_s >= self._next_brief_s:
            tasks.append(Due(BRIEF_AGENT, {"product": self._products[self._briefs % len(self._products)]}))
            self._briefs += 1
            self._next_brief_s = now_s + BRIEF_EVERY_S
        return tasks


class Workload:
    """Submits what is due and keeps the last brief. While the gateway is away, it skips a beat."""

    def __init__(self, farm: FarmClient, rhythm: Rhythm) -> None:
        self._farm = farm
        self._rhythm = rhythm
        self._brief_task: int | None = None
        self.last_brief: str = ""

    def step(self, now_s: float, has_trades: bool) -> None:
        """One beat."""
        try:
            self._read_brief()
            for due in self._rhythm.due(now_s, has_trades):
                body = {"agent": due.agent, "input": due.input, "labels": LABELS}
                task = int(self._farm.post("/v1/tasks", body, timeout_s=3.0)["id"])
                if due.agent == BRIEF_AGENT:
                    self._brief_task = task
        except FarmError:
            return

    def _read_brief(self) -> None:
        if self._brief_task is None:
            return
        task = self._farm.get(f"/v1/tasks/{self._brief_task}", timeout_s=3.0)
        if task["is_final"]:
            self._brief_task = None
            self.last_brief = brief_text(task["output"]) or self.last_brief


def brief_text(output: Any) -> str:
    """The words of a brief, in one line; empty when there are none."""
    brief = output.get("brief", "") if isinstance(output, dict) else output
    return " ".join(str(brief or "").split())
