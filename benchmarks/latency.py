"""From submit to result on an idle farm, over HTTP: `python -m benchmarks.latency [--tasks 1000]`.

Single tasks, one after the other on one connection, each submitted with `?wait=` and answered with its stored result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from benchmarks.farm import EXAMPLES, Farm, machine, progress


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    options = parser.parse_args()
    progress("starting a farm")
    times = []
    with Farm(nodes=1) as farm:
        agent = farm.deploy(EXAMPLES / "echo.py")
        for number in range(options.tasks + 50):
            started = time.perf_counter()
            answer = farm.http.post("/v1/tasks?wait=10", json={"agent": agent, "input": {"n": number}})
            took = time.perf_counter() - started
            assert answer.json()["state"] == "succeeded", answer.text
            if number >= 50:  # the first ones warm caches and connections
                times.append(took * 1e3)
            if number % 100 == 0:
                progress(f"{number} of {options.tasks}")
    progress("")
    cuts = statistics.quantiles(times, n=100)
    print(f"{options.tasks} single tasks, submit to result over HTTP, {machine()}")
    print(f"p50 {cuts[49]:.2f} ms   p90 {cuts[89]:.2f} ms   p99 {cuts[98]:.2f} ms   max {max(times):.2f} ms")
    print(json.dumps({"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3)}))


if __name__ == "__main__":
    main()
