"""Something dies; how soon does its work go on? `python -m benchmarks.recovery [--rounds 5] [--only FAULT …]`.

Three nodes at default settings. node: the whole process tree of one node is killed at once; for each task that ran
there, the time until its next attempt begins elsewhere, read from a file the agents themselves write. controller and
daemon: kill -9 of that one process, which is started again a second later; the time from the kill until a task that
was running ends (when the controller says it did), and until one submitted at the kill and repeated until somebody
answers has its result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from benchmarks.farm import Farm, machine, progress
from benchmarks.faults import RESTART_AFTER_S

AGENT: Final = Path(__file__).parent / "agents" / "recorder.py"
TASKS: Final = 24
TASK_SECONDS: Final = 20.0
SHORT_SECONDS: Final = 0.5
REPEAT_EVERY_S: Final = 0.05
DEADLINE_S: Final = 120.0


@dataclass
class Starts:
    """What the restarts of one process cost: seconds from exec until it is ready, and CPU seconds until then."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def records(path: Path) -> list[dict[str, Any]]:
    """Every line the agents wrote so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def one_round(farm: Farm, agent: str, record: Path, kind: str, node: str, starts: dict[str, Starts]) -> list[float]:
    """One fault, and all of its work done again: how long each task touched by it was held up, in seconds."""
    if kind == "node":
        return node_round(farm, agent, record, node)
    if kind == "controller":
        return process_round(farm, agent, record, kind, lambda: restart_controller(farm, starts[kind]))
    return process_round(farm, agent, record, node, lambda: restart_daemon(farm, node, starts[kind]))


def node_round(farm: Farm, agent: str, record: Path, victim: str) -> list[float]:
    """Kill one node under load; seconds until each task that ran there runs again."""
    _begin(farm, agent, record, TASK_SECONDS)
    lost = {line["task"] for line in records(record) if line["node"] == victim}
    killed = time.time()
    farm.kill_node(victim)

    def again() -> dict[int, float]:
        return {r["task"]: r["at"] for r in records(record) if r["event"] == "began" and r["attempt"] > 1}

    farm.wait_for(lambda: lost <= set(again()), f"{len(lost)} tasks to run again", deadline_s=60)
    farm.start_node(victim)
    _end(farm, record)
    return [again()[task] - killed for task in lost]


def process_round(farm: Farm, agent: str, record: Path, victim: str, restart: Callable[[], None]) -> list[float]:
    """Kill one process under load and `restart` it; seconds until each task that it had a hand in has ended."""
    ids = _begin(farm, agent, record, SHORT_SECONDS)
    touched = {line["task"] for line in records(record) if line["node"] == victim} or set(ids)
    with ThreadPoolExecutor(1) as threads:
        killed = time.time()
        farm.kill(victim)
        asked = threads.submit(_insist, farm, agent, record, f"at-{killed}")
        time.sleep(RESTART_AFTER_S)
        restart()
        asked.result()
    _end(farm, record, TASKS + 1)
    touched.add(int(asked.result()["id"]))
    ends = [farm.http.get(f"/v1/tasks/{task}").raise_for_status().json()["finished_at"] for task in touched]
    return [max(0.0, datetime.fromisoformat(end).timestamp() - killed) for end in ends]


def restart_controller(farm: Farm, starts: Starts) -> None:
    """Start it again; noted is when it says that it serves."""
    began = time.monotonic()
    farm.start_controller(leads=False)
    starts.wall_s.append(time.monotonic() - began)
    times = psutil.Process(farm.processes["controller"].pid).cpu_times()
    starts.cpu_s.append(times.user + times.system)
    farm.speak_to("controller")


def restart_daemon(farm: Farm, name: str, starts: Starts) -> None:
    """Start it again; noted is when the controller has welcomed it."""
    log = farm.folder / f"{name}.log"
    size = log.stat().st_size
    began = time.monotonic()
    farm.start_node(name)
    farm.wait_for(lambda: b"link.connected" in log.read_bytes()[size:], "the daemon to be welcomed")
    starts.wall_s.append(time.monotonic() - began)
    times = psutil.Process(farm.processes[name].pid).cpu_times()
    starts.cpu_s.append(times.user + times.system)


def _begin(farm: Farm, agent: str, record: Path, seconds: float) -> list[int]:
    """TASKS tasks that all run."""
    record.unlink(missing_ok=True)
    body = {"agent": agent, "input": {"record": str(record), "seconds": seconds}}
    answer = farm.http.post("/v1/tasks/batch", content=(json.dumps(body) + "\n") * TASKS).raise_for_status()
    farm.wait_for(lambda: len(records(record)) >= TASKS, "all tasks to begin")
    return [int(json.loads(line)["id"]) for line in answer.text.splitlines()]


def _end(farm: Farm, record: Path, tasks: int = TASKS) -> None:
    """Every task ends, each once."""
    farm.wait_for(lambda: _live(farm) == 0, "every task to end", deadline_s=DEADLINE_S)
    ended = Counter(line["task"] for line in records(record) if line["event"] == "ended")
    assert len(ended) == tasks, f"{tasks - len(ended)} tasks were lost"


def _insist(farm: Farm, agent: str, record: Path, key: str) -> Any:
    """Submit one task, again and again under one key, until somebody answers with its result."""
    body = {"agent": agent, "input": {"record": str(record)}}
    headers = {**farm.http.headers, "Idempotency-Key": key}
    deadline = time.monotonic() + DEADLINE_S
    with httpx.Client(base_url=farm.gateway, headers=headers, timeout=35) as http:
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError, OSError):
                answer = http.post("/v1/tasks?wait=30", json=body)
                if answer.is_success and answer.json()["is_final"]:
                    return answer.json()
            time.sleep(REPEAT_EVERY_S)
    raise TimeoutError(f"no result within {DEADLINE_S:g} s\n{farm.log_tails()}")


def _live(farm: Farm) -> int:
    tasks = farm.http.get("/v1/status").raise_for_status().json()["tasks"]
    return int(tasks["queued"] + tasks["leased"] + tasks["running"])


def p50_p99(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, of measured values alone."""
    ordered = sorted(times)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    kinds = ("node", "controller", "daemon")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, metavar="FAULT", help=", ".join(kinds))
    options = parser.parse_args()
    times: dict[str, list[float]] = {kind: [] for kind in options.only}
    starts = {"controller": Starts(), "daemon": Starts()}
    progress("starting a farm of three nodes")
    with Farm(nodes=3) as farm:
        agent, record = farm.deploy(AGENT, replicas=6, concurrency=8), farm.folder / "record"
        for kind in options.only:
            for number in range(options.rounds):
                progress(f"{kind}: round {number + 1} of {options.rounds}")
                node = farm.node_names[number % 3]
                times[kind] += one_round(farm, agent, record, kind, node, starts)
                farm.wait_running(agent, 6)
    progress("")
    _tell(times, starts, options.rounds)


def _tell(times: dict[str, list[float]], starts: dict[str, Starts], rounds: int) -> None:
    print(f"{rounds} rounds each, three nodes, defaults, {machine()}; restart {RESTART_AFTER_S:g} s after the kill")
    print(f"{'killed':<12}{'tasks':>7}{'p50 s':>8}{'p99 s':>8}{'max s':>8}{'start s':>9}{'its CPU s':>11}")
    figures: dict[str, float] = {}
    for kind, values in times.items():
        p50, p99 = p50_p99(values)
        prefix = "" if kind == "node" else f"{kind}_"
        figures |= {f"{prefix}p50_s": round(p50, 2), f"{prefix}p99_s": round(p99, 2)}
        line = f"{kind:<12}{len(values):>7}{p50:>8.2f}{p99:>8.2f}{max(values):>8.2f}"
        if kind in starts:
            wall, cpu = statistics.median(starts[kind].wall_s), statistics.median(starts[kind].cpu_s)
            figures |= {f"{kind}_start_s": round(wall, 2), f"{kind}_start_cpu_s": round(cpu, 2)}
            line += f"{wall:>9.2f}{cpu:>11.2f}"
        print(line)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
