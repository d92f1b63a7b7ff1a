"""A node loses power; how soon does its work run again? `python -m benchmarks.recovery [--rounds 5]`.

Three nodes at default settings run long tasks. The whole process tree of one node is killed at once (kill -9); for
each task that ran there, the time until its next attempt begins elsewhere is read from a file the agents themselves
write.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.farm import Farm, machine, progress

AGENT = Path(__file__).parent / "agents" / "recorder.py"
TASKS = 24
TASK_SECONDS = 20.0


def records(path: Path) -> list[dict[str, Any]]:
    """Every line the agents wrote so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def one_round(farm: Farm, agent: str, record: Path, victim: str) -> list[float]:
    """Kill one node under load; seconds until each task that ran there runs again."""
    record.unlink(missing_ok=True)
    body = {"agent": agent, "input": {"record": str(record), "seconds": TASK_SECONDS}}
    farm.http.post("/v1/tasks/batch", content=(json.dumps(body) + "\n") * TASKS).raise_for_status()
    farm.wait_for(lambda: len(records(record)) >= TASKS, "all tasks to begin")
    lost = {line["task"] for line in records(record) if line["node"] == victim}
    killed = time.time()
    farm.kill_node(victim)

    def again() -> dict[int, float]:
        return {r["task"]: r["at"] for r in records(record) if r["event"] == "began" and r["attempt"] > 1}

    farm.wait_for(lambda: lost <= set(again()), f"{len(lost)} tasks to run again", deadline_s=60)
    farm.start_node(victim)
    farm.wait_for(lambda: _ended(farm) == 0, "every task to end", deadline_s=120)
    ended = Counter(line["task"] for line in records(record) if line["event"] == "ended")
    assert len(ended) == TASKS, f"{TASKS - len(ended)} tasks were lost"
    return [again()[task] - killed for task in lost]


def _ended(farm: Farm) -> int:
    tasks = farm.http.get("/v1/status").raise_for_status().json()["tasks"]
    return int(tasks["queued"] + tasks["leased"] + tasks["running"])


def main() -> None:
    """Print a line for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: list[float] = []
    progress("starting a farm of three nodes")
    with Farm(nodes=3) as farm:
        agent = farm.deploy(AGENT, replicas=6, concurrency=8)
        for number in range(options.rounds):
            victim = farm.node_names[number % 3]
            progress(f"round {number + 1} of {options.rounds}: power cut of {victim}")
            times += one_round(farm, agent, farm.folder / "record", victim)
            farm.wait_running(agent, 6)
    progress("")
    cuts = statistics.quantiles(times, n=100)
    print(f"{options.rounds} power cuts, {len(times)} tasks interrupted, defaults, {machine()}")
    print(f"running again after p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, max {max(times):.2f} s")
    print(json.dumps({"p50_s": round(cuts[49], 2), "p99_s": round(cuts[98], 2)}))


if __name__ == "__main__":
    main()
