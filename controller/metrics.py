"""What the engine counts. The gateway shows it to Prometheus."""

from __future__ import annotations

import dataclasses
from typing import Final

from agentfarm.limits import GIVEN_BACK
from controller.core.transition import Transition

COMMIT_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histogram of commit times."""


@dataclasses.dataclass(slots=True)
class EngineMetrics:
    """Plain counters: seconds and counts since the engine started."""

    turns: int = 0
    commits: int = 0
    commit_failures: int = 0
    commands: int = 0
    decide_s: float = 0.0
    commit_s: float = 0.0
    last_commit_s: float = 0.0
    commit_buckets: dict[float, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(COMMIT_BUCKETS_S, 0))
    tasks_submitted: int = 0
    tasks_finished: dict[str, int] = dataclasses.field(default_factory=dict)
    attempts_requeued: int = 0
    attempts_given_back: int = 0
    recoveries: int = 0

    def count_commit(self, took_s: float) -> None:
        """Count one commit and its time. A commit slower than the last bucket counts in the sum only."""
        self.commits += 1
        self.commit_s += took_s
        self.last_commit_s = took_s
        bound = next((bound for bound in COMMIT_BUCKETS_S if took_s <= bound), None)
        if bound is not None:
            self.commit_buckets[bound] += 1

    def count_durable(self, transition: Transition) -> None:
        """Count the work in a turn that is committed."""
        changes = transition.changes
        self.tasks_submitted += len(changes.inserted_tasks)
        self.attempts_requeued += len(changes.requeued_tasks)
        for ended in changes.ended_attempts:
            self.attempts_given_back += ended.error_type == GIVEN_BACK
        for item in transition.finished:
            self.tasks_finished[item.state.value] = self.tasks_finished.get(item.state.value, 0) + 1
