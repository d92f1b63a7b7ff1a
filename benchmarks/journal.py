"""What making a task's life durable costs: CPU of the controller's side and of PostgreSQL, in turns of several sizes.

    python -m benchmarks.journal [--tasks 20000]

A life is three turns: inserted; leased (one lease row); finished and its lease row ended. Everything is as in the farm:
the embedded server with fsync on, JSON inputs and outputs of about 100 bytes. `load` reads 100,000 queued tasks back.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from controller.core.lives import TaskState
from controller.core.model import (
    Deployment,
    DeploymentName,
    Instant,
    Limits,
    NodeName,
    ReplicaId,
    Task,
    TaskId,
    Token,
    Version,
)
from controller.core.policy import Policy
from controller.core.transition import Changes, FinishedTask, LeaseBatch
from controller.journal.journal import Journal
from controller.journal.migrations.migrate import migrate
from controller.postgres import EmbeddedPostgres

BRIEF = DeploymentName("market-brief")
INPUT = b'{"product": "BTC-USD", "window_s": 300, "question": "Where is the price going, and how sure are you?"}'
OUTPUT = b'{"vwap": 67123.45, "volatility": 0.0123, "imbalance": -0.21, "brief": "Quiet, with more sellers."}'
TURNS = (1, 64, 512)
LOAD_TASKS = 100_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks for the largest turns; fewer for small ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentfarm-bench-") as folder:
        Path(folder).chmod(0o755)
        results = asyncio.run(_measure(Path(folder), arguments.tasks))
    print(json.dumps(results))


async def _measure(folder: Path, tasks: int) -> dict[str, Any]:
    server = EmbeddedPostgres(folder / "postgres")
    await server.start()
    try:
        return await asyncio.to_thread(_run, server, tasks)
    finally:
        await server.stop()


def _run(server: EmbeddedPostgres, tasks: int) -> dict[str, Any]:
    migrate(server.dsn)
    journal = Journal(server.dsn)
    epoch = journal.take_lead()
    journal.load(Limits(), _now())
    version = Version(BRIEF, 1, "sha256:1", "{}", Policy(), time.time())
    changes = Changes()
    changes.store(Deployment(BRIEF, 1, 1, {1: version}))
    changes.store(version)
    journal.commit(changes, epoch)
    lives = _Lives(journal, epoch)
    lives.run(64, 640)  # plans and caches
    results: dict[str, Any] = {"benchmark": "journal", "turns": {}}
    print(
        f"{'turn':>5} {'controller':>11} {'PostgreSQL':>11} {'sum':>7} µs of CPU per task   {'commit':>9} ms per turn"
    )
    for size in TURNS:
        count = tasks if size >= 64 else max(size, tasks // 20)
        before, began = _cpu_s(server), time.perf_counter()
        lives.run(size, count)
        after, wall_s = _cpu_s(server), time.perf_counter() - began
        ours, theirs = ((b - a) / count * 1e6 for a, b in zip(before, after, strict=True))
        turn_ms = wall_s / (count / size) / 3 * 1e3
        print(f"{size:>5} {ours:>11.1f} {theirs:>11.1f} {ours + theirs:>7.1f} {'':19} {turn_ms:>12.2f}")
        results["turns"][size] = {
            "controller_us": round(ours, 1), "postgres_us": round(theirs, 1), "commit_ms": round(turn_ms, 3),
        }  # fmt: skip
    results["load"] = _load(journal, lives, server)
    results["postgres_rss_mib"] = round(_memory_mib(server), 1)
    print(f"PostgreSQL holds {results['postgres_rss_mib']} MiB (PSS of all its processes)")
    journal.close()
    return results


class _Lives:
    """Tasks from their first row to their last."""

    def __init__(self, journal: Journal, epoch: int) -> None:
        self._journal, self._epoch = journal, epoch
        self._next = self._token = self._batch = 1

    def insert(self, count: int) -> list[Task]:
        """One turn of new tasks."""
        now = time.time()
        tasks = [Task(TaskId(self._next + n), BRIEF, 0, now, INPUT, len(INPUT)) for n in range(count)]
        self._next += count
        self._journal.commit(Changes(inserted_tasks=tasks), self._epoch)
        return tasks

    def run(self, size: int, count: int) -> None:
        """`count` whole lives in turns of `size`."""
        for _ in range(max(1, count // size)):
            tasks = self.insert(size)
            batch = self._lease(tasks)
            self._journal.commit(Changes(lease_batches=[batch]), self._epoch)
            now = time.time()
            ended = [FinishedTask(task, TaskState.SUCCEEDED, now, OUTPUT, version=1) for task in tasks]
            self._journal.commit(Changes(finished_tasks=ended, ended_lease_batches=[batch.id]), self._epoch)

    def _lease(self, tasks: Sequence[Task]) -> LeaseBatch:
        batch = LeaseBatch(self._batch, NodeName("node-1"), time.time(), [], [], [], [])
        self._batch += 1
        for task in tasks:
            self._token += 1
            task.token, task.attempt = Token(self._epoch << 40 | self._token), 1
            task.node, task.replica, task.leased_at = batch.node, ReplicaId(1), batch.leased_at
            batch.tasks.append(task.id)
            batch.attempts.append(1)
            batch.tokens.append(task.token)
            batch.replicas.append(task.replica)
        return batch


def _load(journal: Journal, lives: _Lives, server: EmbeddedPostgres) -> dict[str, float]:
    for _ in range(LOAD_TASKS // 2_000):
        lives.insert(2_000)
    before, began = _cpu_s(server), time.perf_counter()
    state = journal.load(Limits(), _now())
    wall_s, after = time.perf_counter() - began, _cpu_s(server)
    cpu_s = sum(after) - sum(before)
    print(f"load: {len(state.tasks)} queued tasks with inputs in {wall_s:.2f} s ({cpu_s:.2f} s of CPU)")
    return {"tasks": len(state.tasks), "wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3)}


def _now() -> Instant:
    return Instant(time.monotonic(), time.time())


def _processes(server: EmbeddedPostgres) -> list[psutil.Process]:
    assert server.pid is not None
    postmaster = psutil.Process(server.pid)
    return [postmaster, *postmaster.children()]


def _cpu_s(server: EmbeddedPostgres) -> tuple[float, float]:
    """CPU seconds so far: ours, and those of every PostgreSQL process that lives, with children that ended."""
    ours = psutil.Process().cpu_times()
    theirs = 0.0
    for process in _processes(server):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            theirs += used.user + used.system + used.children_user + used.children_system
    return ours.user + ours.system, theirs


def _memory_mib(server: EmbeddedPostgres) -> float:
    """Proportional set size: shared pages are counted once. Resident size where the system has no such figure."""
    total = 0
    for process in _processes(server):
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total / 2**20


if __name__ == "__main__":
    main()
