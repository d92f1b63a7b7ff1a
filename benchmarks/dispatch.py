"""What one durable no-op task costs: `python -m benchmarks.dispatch [--tasks 100000] [--replicas 4] [--peer]`.

A farm of real processes (controller, PostgreSQL, one node daemon, replicas) takes the tasks in batches over HTTP, runs
each once and stores each result. CPU time counts every process of the farm; the client's own is shown beside it. With
`--peer`, other task queues do a twentieth of the tasks in the same run, in batches where they have them.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.farm import EXAMPLES, Farm, machine, progress
from benchmarks.peers.no_ops import compare
from benchmarks.peers.queues import QUEUES

BATCH = 1_000
"""Lines of one request."""


def submit(farm: Farm, agent: str, count: int) -> int:
    """Submit `count` no-op tasks in batches; returns the last task's id."""
    line = json.dumps({"agent": agent, "input": {}}).encode() + b"\n"
    last = 0
    for begin in range(0, count, BATCH):
        answer = farm.http.post("/v1/tasks/batch", content=line * min(BATCH, count - begin))
        answer.raise_for_status()
        rows = [json.loads(row) for row in answer.text.splitlines()]
        last = rows[-1]["id"]
        progress(f"submitted {begin + len(rows)} of {count}")
    return last


def succeeded(farm: Farm) -> int:
    """How many tasks have succeeded so far."""
    tasks = farm.http.get("/v1/status").raise_for_status().json()["tasks"]
    return int(tasks.get("succeeded", 0))


def measure(farm: Farm, agent: str, count: int) -> dict[str, float]:
    """CPU by kind of process, and seconds, for `count` tasks from the first submit to the last stored result."""
    before, done, started = farm.cpu_s(), succeeded(farm), time.monotonic()
    client = time.process_time()
    submit(farm, agent, count)
    client = time.process_time() - client
    submitted = time.monotonic() - started
    farm.wait_for(lambda: succeeded(farm) - done >= count, f"{count} results", deadline_s=600)
    seconds = time.monotonic() - started
    after = farm.cpu_s()
    used = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    return {**used, "client": client, "seconds": seconds, "submit_seconds": submitted}


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--peer", action="store_true", help=f"also measure {' and '.join(QUEUES)}")
    options = parser.parse_args()
    progress("starting a farm")
    with Farm(nodes=1) as farm:
        agent = farm.deploy(EXAMPLES / "echo.py", replicas=options.replicas, concurrency=options.concurrency)
        measure(farm, agent, 2_000)  # warm: plans, caches, service times
        used = measure(farm, agent, options.tasks)
    progress("")
    seconds, submit_seconds, client = used.pop("seconds"), used.pop("submit_seconds"), used.pop("client")
    print(f"{options.tasks} no-op tasks, {options.replicas} replicas x {options.concurrency}, {machine()}")
    for kind, cpu in sorted(used.items()):
        print(f"{kind:>12} {cpu / options.tasks * 1e6:8.1f} us CPU per task")
    total = sum(used.values())
    print(
        f"{'farm':>12} {total / options.tasks * 1e6:8.1f} us CPU per task (client beside it: "
        f"{client / options.tasks * 1e6:.1f}); submitted in {submit_seconds:.1f} s, all done in {seconds:.1f} s"
    )
    result = {"cpu_ms_per_task": round(total / options.tasks * 1e3, 4), "tasks_per_s": round(options.tasks / seconds)}
    print(json.dumps({**result, **(compare(max(1_000, options.tasks // 20)) if options.peer else {})}))


if __name__ == "__main__":
    main()
