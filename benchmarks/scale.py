"""From no replica to many on one node, each answering a task: `python -m benchmarks.scale [--replicas 100]`.

The agent is a LangGraph one (examples/question_answering.py). The clock runs from the scale request to the moment
the last replica has answered its first task; the environment is warm, as it is on a node that ran the agent before.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks.farm import EXAMPLES, Farm, machine, progress

SPEC = {"resources": {"cpu_millicores": 20, "memory_mib": 32, "gpus": 0}}


def main() -> None:
    """Print a line for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=100)
    options = parser.parse_args()
    progress("starting a farm")
    with Farm(nodes=1) as farm:
        agent = farm.deploy(EXAMPLES / "question_answering.py", replicas=1, **SPEC)
        farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": 0}).raise_for_status()
        farm.wait_for(lambda: not _replicas(farm, agent), "the warm-up replica to be gone")
        progress(f"0 -> {options.replicas} replicas")
        started = time.monotonic()
        farm.http.post(f"/v1/deployments/{agent}/scale", json={"replicas": options.replicas}).raise_for_status()
        farm.wait_running(agent, options.replicas)
        running = time.monotonic() - started
        line = json.dumps({"agent": agent, "input": {"question": "What is a farm?"}}).encode() + b"\n"
        farm.http.post("/v1/tasks/batch", content=line * options.replicas).raise_for_status()
        farm.wait_for(lambda: all(r["served"] for r in _replicas(farm, agent)), "every replica to answer")
        seconds = time.monotonic() - started
    progress("")
    print(f"0 -> {options.replicas} replicas on one node, {machine()}: all running after {running:.2f} s,")
    print(f"each had answered a task after {seconds:.2f} s")
    print(json.dumps({"seconds": round(seconds, 3)}))


def _replicas(farm: Farm, agent: str) -> list[dict[str, Any]]:
    view = farm.http.get(f"/v1/deployments/{agent}").raise_for_status().json()
    replicas: list[dict[str, Any]] = view["replicas"]
    return replicas


if __name__ == "__main__":
    main()
