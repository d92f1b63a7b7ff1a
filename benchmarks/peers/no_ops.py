"""What a no-op task costs on another task queue: one worker, results stored, the client's CPU beside it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.farm import progress
from benchmarks.peers.queues import QUEUES, Missing, Queue

BATCH: Final = 1_000
CONCURRENCY: Final = 16
WARM_UP: Final = 200
DEADLINE_S: Final = 600.0


@dataclass(frozen=True)
class Cost:
    """Of one task. `client_ms` is not part of `cpu_ms`."""

    words: str
    settings: str
    tasks: int
    cpu_ms: float
    client_ms: float
    tasks_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.words:>20} {self.cpu_ms * 1e3:8.1f} us CPU per task (client: {self.client_ms * 1e3:.1f}), "
            f"{self.tasks_per_s:.0f} tasks/s; {self.tasks} tasks; {self.settings}"
        )


def measure(name: str, tasks: int) -> Cost:
    """Run it. Raises queues.Missing where the queue cannot be had."""
    progress(f"{name}: starting it")
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with QUEUES[name](Path(folder), workers=1, concurrency=CONCURRENCY) as queue:
            _do(queue, WARM_UP, 0)
            before, started = queue.cpu_s(), time.monotonic()
            _do(queue, tasks, WARM_UP)
            seconds, after = time.monotonic() - started, queue.cpu_s()
            used = {kind: after[kind] - before[kind] for kind in after}
            client = used.pop("client")
            return Cost(queue.words, queue.settings, tasks, sum(used.values()) / tasks * 1e3, client / tasks * 1e3,
                        tasks / seconds)  # fmt: skip


def _do(queue: Queue, tasks: int, done_before: int) -> None:
    for begin in range(0, tasks, BATCH):
        queue.ask(op="noop", count=min(BATCH, tasks - begin))
    deadline = time.monotonic() + DEADLINE_S
    while (done := int(queue.ask(op="done")["done"]) - done_before) < tasks:
        progress(f"{queue.name}: {done} of {tasks}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{queue.name} did {done} of {tasks} tasks in {DEADLINE_S:g} s")
        time.sleep(0.25)


def compare(tasks: int) -> dict[str, Any]:
    """Every queue that can be had here, a line each; their figures by name."""
    figures: dict[str, Any] = {}
    for name in QUEUES:
        try:
            cost = measure(name, tasks)
        except Missing as problem:
            print(f"{name:>20} skipped: {problem}")
            continue
        progress("")
        print(cost)
        figures[name] = {"cpu_ms_per_task": round(cost.cpu_ms, 3), "tasks_per_s": round(cost.tasks_per_s)}
    return figures
