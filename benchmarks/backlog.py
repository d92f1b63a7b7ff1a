"""A deep queue: `python -m benchmarks.backlog [--tasks 1000000] [--restart 100000]`.

Tasks wait for an agent without replicas. The controller's memory is read with the whole backlog queued; the restart
is timed from the start of the process to the first answered request, with the smaller backlog.
"""

from __future__ import annotations

import argparse
import json
import time

import psutil

from benchmarks.dispatch import submit
from benchmarks.farm import EXAMPLES, Farm, machine, progress


def rss_mib(farm: Farm) -> float:
    """Resident memory of the controller."""
    return float(psutil.Process(farm.processes["controller"].pid).memory_info().rss / 2**20)


def restart_s(farm: Farm) -> float:
    """Seconds from starting the killed controller until it leads and answers."""
    farm.kill("controller")
    started = time.monotonic()
    farm.start_controller()
    return time.monotonic() - started


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--restart", type=int, default=100_000)
    options = parser.parse_args()
    progress("starting a controller")
    with Farm(nodes=0) as farm:
        agent = farm.deploy(EXAMPLES / "echo.py", replicas=0)
        empty = rss_mib(farm)
        submit(farm, agent, options.restart)
        progress(f"restarting with {options.restart} queued")
        restarted = restart_s(farm)
        submit(farm, agent, options.tasks - options.restart)
        full = rss_mib(farm)
        queued = farm.http.get("/v1/status").json()["tasks"]["queued"]
        assert queued == options.tasks, queued
        progress(f"restarting with {options.tasks} queued")
        restarted_full = restart_s(farm)
    progress("")
    print(f"controller {empty:.0f} MiB empty, {full:.0f} MiB with {options.tasks} queued tasks, {machine()}")
    print(f"restart {restarted:.2f} s with {options.restart} queued, {restarted_full:.2f} s with {options.tasks}")
    print(json.dumps({"controller_mib": round(full), "restart_s": round(restarted, 2)}))


if __name__ == "__main__":
    main()
