"""How the cost of a task grows with payload, replicas, queue depth and nodes: `python -m benchmarks.growth [--quick]`.

One table a question, CPU time of every process of the farm for one durable task; nodes are stubs (`benchmarks.fleet`),
so theirs is the controller's CPU alone while they only beat. The last line holds, for each question, the factor by
which the cost grew from the smallest to the largest step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from benchmarks import fleet
from benchmarks.farm import EXAMPLES, Farm, machine, progress

BATCH_BYTES: Final = 4 * 2**20
BATCH_LINES: Final = 1_000
WARM_TASKS: Final = 500


@dataclass(frozen=True, slots=True)
class Step:
    """One row: where on the way we are, and what a task costs there. seconds: from first submit to last result."""

    at: int
    cpu_us: float
    tasks_per_s: float


def main() -> None:
    """Print a table a question, and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and steps")
    few = parser.parse_args().quick
    print(f"CPU of the whole farm for one durable task, {machine()}")
    tables = {
        "payload_bytes": payloads([100, 10_000] if few else [100, 1_000, 10_000, 100_000], 2_000 if few else 10_000),
        "replicas": replicas([1, 8] if few else [1, 4, 16, 64], 2_000 if few else 10_000),
        "queue_depth": depths([1_000, 5_000] if few else [1_000, 10_000, 100_000]),
    }
    for name, steps in tables.items():
        tell(name, steps)
    beats = [nodes_only_beating(count) for count in ([10, 50] if few else [50, 200, 500])]
    print("\nnodes     % of a core (controller and PostgreSQL, beats alone)     dispatch p50 ms")
    for count, core_pct, p50_ms in beats:
        print(f"{count:>5} {core_pct:>12.1f} {p50_ms:>57.2f}")
    growth = {f"{name}_x": round(steps[-1].cpu_us / steps[0].cpu_us, 2) for name, steps in tables.items()}
    print(json.dumps({**growth, "core_pct_per_100_nodes": round(beats[-1][1] / beats[-1][0] * 100, 2)}))


def tell(name: str, steps: Sequence[Step]) -> None:
    """A table for people."""
    print(f"\n{name:>14} {'µs CPU per task':>18} {'tasks/s':>10}")
    for step in steps:
        print(f"{step.at:>14,} {step.cpu_us:>18.1f} {step.tasks_per_s:>10,.0f}")


def payloads(sizes: Sequence[int], tasks: int) -> list[Step]:
    """Inputs and outputs of that many bytes each; at most a quarter of a gigabyte a step."""
    with _farm() as farm:
        agent = farm.deploy(EXAMPLES / "echo.py", replicas=4, concurrency=16)
        _run(farm, agent, WARM_TASKS, 100)
        return [_run(farm, agent, max(500, min(tasks, 2**28 // size)), size, at=size) for size in sizes]


def replicas(counts: Sequence[int], tasks: int) -> list[Step]:
    """One attempt at a time in each replica, all on one node."""
    with _farm() as farm:
        steps = []
        agent = farm.deploy(EXAMPLES / "echo.py", replicas=counts[0], concurrency=1, resources=_SMALL)
        for count in counts:
            farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": count}).raise_for_status()
            farm.wait_running(agent, count)
            _run(farm, agent, WARM_TASKS, 20)
            steps.append(_run(farm, agent, tasks, 20, at=count))
        return steps


def depths(counts: Sequence[int]) -> list[Step]:
    """All submitted while no node takes work; then the node is let in, and only the working off is counted."""
    steps = []
    for count in counts:
        with _farm() as farm:
            agent = farm.deploy(EXAMPLES / "echo.py", replicas=4, concurrency=16)
            _run(farm, agent, WARM_TASKS, 20)
            farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": 0}).raise_for_status()
            farm.wait_for(lambda farm=farm, agent=agent: not _running(farm, agent), "replicas to stop")
            done = _succeeded(farm)
            _submit(farm, agent, count, 20)
            farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": 4}).raise_for_status()
            steps.append(_work_off(farm, count, done, at=count))
    return steps


def nodes_only_beating(count: int) -> tuple[int, float, float]:
    """Nodes, percent of a core that their beats cost, and the median dispatch of a single task in milliseconds."""
    with Farm(nodes=0) as farm:
        got = uvloop.run(fleet.measure(farm, count, 200))
    return count, got["idle_pct"], got["p50"]


_SMALL: Final = {"cpu_millicores": 20, "memory_mib": 16, "gpus": 0}


def _farm() -> Farm:
    return Farm(nodes=1)


def _run(farm: Farm, agent: str, tasks: int, size: int, at: int = 0) -> Step:
    """Submit and work off, counted together."""
    done = _succeeded(farm)
    return _counted(farm, tasks, at, lambda: _finish(farm, done + tasks, lambda: _submit(farm, agent, tasks, size)))


def _work_off(farm: Farm, tasks: int, done: int, at: int) -> Step:
    return _counted(farm, tasks, at, lambda: _finish(farm, done + tasks, lambda: None))


def _counted(farm: Farm, tasks: int, at: int, work: Callable[[], float]) -> Step:
    before = sum(farm.cpu_s().values())
    seconds = work()
    cpu_s = sum(farm.cpu_s().values()) - before
    progress(f"{at:,}: {cpu_s / tasks * 1e6:.0f} µs")
    return Step(at, cpu_s / tasks * 1e6, tasks / seconds)


def _finish(farm: Farm, count: int, begin: Callable[[], None]) -> float:
    """Seconds until so many tasks of the farm have succeeded."""
    started = time.monotonic()
    begin()
    farm.wait_for(lambda: _succeeded(farm) >= count, f"{count} results", deadline_s=900)
    return time.monotonic() - started


def _submit(farm: Farm, agent: str, count: int, size: int) -> None:
    line = json.dumps({"agent": agent, "input": "x" * size}).encode() + b"\n"
    lines = max(1, min(BATCH_LINES, BATCH_BYTES // len(line)))
    for begin in range(0, count, lines):
        farm.http.post("/v1/tasks/batch", content=line * min(lines, count - begin)).raise_for_status()


def _succeeded(farm: Farm) -> int:
    return int(farm.http.get("/v1/status").raise_for_status().json()["tasks"].get("succeeded", 0))


def _running(farm: Farm, agent: str) -> int:
    view = farm.http.get(f"/v1/deployments/{agent}").raise_for_status().json()
    return sum(replica["state"] not in ("stopped", "failed") for replica in view["replicas"])


if __name__ == "__main__":
    main()
