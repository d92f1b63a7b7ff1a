"""From submit to result on an idle farm, over HTTP: `python -m benchmarks.latency [--tasks 1000]`.

Single tasks, one after the other on one connection, each submitted with `?wait=` and answered with its stored result.
The client is the standard library's, because the cost of a client library is not the farm's time. Its own CPU time is
part of the figures, and is shown too. `/healthz`, asked in between, shows what HTTP alone costs on this machine at this
moment, and a loop of plain Python how fast the machine is.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import time
from typing import Final

from benchmarks.farm import EXAMPLES, Farm, machine, progress

WARM_UP: Final = 50
HEALTH_EVERY: Final = 5
PLAIN_LOOP: Final = 20_000


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    options = parser.parse_args()
    progress("starting a farm")
    times: list[float] = []
    own: list[float] = []
    health: list[float] = []
    loops: list[float] = []
    with Farm(nodes=1) as farm:
        agent = farm.deploy(EXAMPLES / "echo.py")
        client = _Client(farm)
        for number in range(options.tasks + WARM_UP):
            began = time.thread_time()
            took_ms, answer = client.timed("POST", "/v1/tasks?wait=10", {"agent": agent, "input": {"n": number}})
            client_ms = (time.thread_time() - began) * 1e3
            assert (answer["state"], answer["output"]) == ("succeeded", {"n": number}), answer
            if number >= WARM_UP:  # the first ones warm caches and connections
                times.append(took_ms)
                own.append(client_ms)
            if number % HEALTH_EVERY == 0:
                health.append(client.timed("GET", "/healthz")[0])
                loops.append(_plain_loop_ms())
            if number % 100 == 0:
                progress(f"{number} of {options.tasks}")
    progress("")
    cuts = statistics.quantiles(times, n=100)
    health_ms, loop_ms = statistics.median(health), statistics.median(loops)
    print(f"{options.tasks} single tasks, submit to result over HTTP, {machine()}")
    print(f"p50 {cuts[49]:.2f} ms   p90 {cuts[89]:.2f} ms   p99 {cuts[98]:.2f} ms   max {max(times):.2f} ms")
    print(f"of which the client's own CPU: {statistics.median(own):.2f} ms (median)")
    print(f"beside them: /healthz {health_ms:.2f} ms, sum(range({PLAIN_LOOP:,})) {loop_ms:.2f} ms (medians)")
    print(json.dumps({"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3),
                      "client_cpu_ms": round(statistics.median(own), 3),
                      "healthz_p50_ms": round(health_ms, 3), "plain_loop_ms": round(loop_ms, 3)}))  # fmt: skip


class _Client:
    """One connection, kept open."""

    def __init__(self, farm: Farm) -> None:
        url = farm.http.base_url
        self._connection = http.client.HTTPConnection(url.host, url.port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": farm.http.headers["authorization"], "Content-Type": "application/json"}

    def timed(self, method: str, path: str, body: object = None) -> tuple[float, dict[str, object]]:
        """Milliseconds from the call to the parsed answer, and the answer."""
        text = json.dumps(body) if body is not None else None
        started = time.perf_counter()
        self._connection.request(method, path, body=text, headers=self._headers)
        content = self._connection.getresponse().read()
        answer: dict[str, object] = json.loads(content) if content.startswith(b"{") else {}
        return (time.perf_counter() - started) * 1e3, answer


def _plain_loop_ms() -> float:
    started = time.thread_time()
    sum(range(PLAIN_LOOP))
    return (time.thread_time() - started) * 1e3


if __name__ == "__main__":
    main()
