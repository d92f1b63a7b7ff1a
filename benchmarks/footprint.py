"""What a farm costs that does nothing: `python -m benchmarks.footprint [--idle 30] [--replicas 5]`.

Controller and daemon are measured connected and idle. Then replicas of examples/question_answering.py, a LangGraph
agent: the memory that each shares with no other process, when it is ready and after it has answered tasks, and its time
from fork to ready. The figures are of the median replica. A task costs memory because running code counts references in
pages that were shared until then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass

import psutil

from benchmarks.farm import EXAMPLES, Farm, machine, progress
from nodeagent.machine.measure import process_use

SETTLE_S = 5.0
MIB = 2**20
SPEC = {"resources": {"cpu_millicores": 20, "memory_mib": 32, "gpus": 0}}


@dataclass(frozen=True, slots=True)
class Idle:
    """One process over a while. core_pct: of one core."""

    resident_mib: float
    core_pct: float


@dataclass(frozen=True, slots=True)
class Replicas:
    """MiB and milliseconds, one a replica."""

    private_mib: list[float]
    worked_mib: list[float]
    """As above, after tasks."""
    ready_ms: list[int]


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds to watch an idle farm")
    parser.add_argument("--replicas", type=int, default=5)
    options = parser.parse_args()
    progress("starting a farm")
    with Farm(nodes=1) as farm:
        time.sleep(SETTLE_S)
        progress(f"watching it for {options.idle:g} s")
        idle = watch(farm, options.idle)
        progress("deploying a LangGraph agent")
        replicas = measure_replicas(farm, options.replicas)
    progress("")
    daemon, controller = idle["node-1"], idle["controller"]
    private, worked = statistics.median(replicas.private_mib), statistics.median(replicas.worked_mib)
    ready = statistics.median(replicas.ready_ms)
    print(f"an idle farm, watched for {options.idle:g} s, {machine()}")
    print(f"daemon      {daemon.resident_mib:6.1f} MiB resident   {daemon.core_pct:.2f} % of a core")
    print(f"controller  {controller.resident_mib:6.1f} MiB resident   {controller.core_pct:.2f} % of a core")
    print(f"one more replica of a LangGraph agent, {options.replicas} of them")
    print(f"private     {private:6.1f} MiB when ready   {worked:.1f} MiB after tasks")
    print(f"ready after {ready:6.0f} ms from its fork (worst {max(replicas.ready_ms)})")
    figures = {
        "daemon_idle_mib": round(daemon.resident_mib, 1),
        "daemon_idle_core_pct": round(daemon.core_pct, 2),
        "controller_idle_mib": round(controller.resident_mib, 1),
        "replica_private_mib": round(private, 2),
        "replica_worked_mib": round(worked, 2),
        "replica_ready_ms": round(ready),
    }
    print(json.dumps(figures))


def watch(farm: Farm, seconds: float) -> dict[str, Idle]:
    """The farm's own processes, by name, over so many seconds."""
    processes = {name: psutil.Process(process.pid) for name, process in farm.processes.items()}
    before = {name: _cpu_s(process) for name, process in processes.items()}
    time.sleep(seconds)
    return {
        name: Idle(process.memory_info().rss / MIB, (_cpu_s(process) - before[name]) / seconds * 100)
        for name, process in processes.items()
    }


def measure_replicas(farm: Farm, count: int) -> Replicas:
    """Replicas of the question answering example, started one after the other on a warm zygote."""
    agent = farm.deploy(EXAMPLES / "question_answering.py", replicas=1, **SPEC)
    for number in range(2, count + 1):
        farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": number}).raise_for_status()
        farm.wait_running(agent, number)
    private = _private_mib(farm, agent)
    line = json.dumps({"agent": agent, "input": {"question": "What is a farm?"}}).encode() + b"\n"
    farm.http.post("/v1/tasks/batch", content=line * count * 4).raise_for_status()
    farm.wait_for(lambda: all(view["served"] for view in _views(farm, agent)), "every replica to answer")
    return Replicas(private, _private_mib(farm, agent), [view["ready_ms"] for view in _views(farm, agent)])


def _private_mib(farm: Farm, agent: str) -> list[float]:
    return [use.private_mib for view in _views(farm, agent) if (use := process_use(view["pid"])) is not None]


def _views(farm: Farm, agent: str) -> list[dict[str, int]]:
    views: list[dict[str, int]] = farm.http.get(f"/v1/deployments/{agent}").raise_for_status().json()["replicas"]
    return views


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
