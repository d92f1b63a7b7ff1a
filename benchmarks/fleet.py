"""Many nodes on one controller: `python -m benchmarks.fleet [--nodes 500] [--tasks 1000]`.

A real controller with its PostgreSQL; the nodes are stubs in this process, but each has its own certificate, TCP
connection and gRPC stream, beats every second, and answers each task at once. Dispatch is the time from the client's
submit to the moment the assignment reaches its node, measured on one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import uvloop

from agentfarm.identity import certificate_request, new_key
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import link_pb2_grpc
from benchmarks.farm import EXAMPLES, Farm, machine, progress
from controller.authority import Authority

CONNECTS_AT_ONCE = 20


class StubNode:
    """A node that says it runs all that the controller asks for, and finishes every task at once."""

    def __init__(self, name: str, arrivals: dict[int, float]) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._arrivals = arrivals
        self._out: asyncio.Queue[wire.NodeMessage] = asyncio.Queue()

    async def run(self, address: str, key: bytes, certificate: bytes, ca: bytes) -> None:
        """Connect and serve until cancelled."""
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            stream = link_pb2_grpc.LinkStub(channel).Connect(self._say())  # type: ignore[no-untyped-call]
            beats = asyncio.create_task(self._beat())
            try:
                async for message in stream:
                    self._hear(message)
            finally:
                beats.cancel()

    async def _say(self) -> AsyncIterator[wire.NodeMessage]:
        capacity = wire.Capacity(cpu_millicores=4000, memory_mib=14_000)
        yield wire.NodeMessage(
            hello=wire.Hello(protocol=1, daemon_version="stub", daemon_epoch=1, capacity=capacity, has_services=True)
        )
        while True:
            yield await self._out.get()

    async def _beat(self) -> None:
        seq = 0
        while True:
            await asyncio.sleep(1.0)
            seq += 1
            measured = wire.Measured(memory_available_mib=12_000, disk_free_mib=100_000)
            self._out.put_nowait(wire.NodeMessage(beat=wire.Beat(seq=seq, measured=measured)))

    def _hear(self, message: wire.ControllerMessage) -> None:
        kind = message.WhichOneof("body")
        if kind == "welcome":
            self.ready.set()
        elif kind == "desired":
            running = [
                wire.ReplicaStatus(replica_id=r.replica_id, state=wire.REPLICA_STATE_RUNNING, pid=1)
                for r in message.desired.replicas
            ]
            self._out.put_nowait(wire.NodeMessage(replica_report=wire.ReplicaReport(replicas=running)))
        elif kind == "assign":
            now = time.perf_counter()
            results = []
            for item in message.assign.assignments:
                self._arrivals[item.task_id] = now
                results.append(
                    wire.AttemptResult(
                        task_id=item.task_id, fencing_token=item.fencing_token, outcome=wire.OUTCOME_SUCCEEDED,
                        output=b"{}", duration_us=1000,
                    )
                )  # fmt: skip
            self._out.put_nowait(wire.NodeMessage(attempt_results=wire.AttemptResults(results=results)))


async def connect(farm: Farm, count: int, arrivals: dict[int, float]) -> list[asyncio.Task[None]]:
    """Join `count` stub nodes; returns the tasks that keep them connected."""
    address = json.loads((farm.folder / "controller" / "controller.json").read_text())["link"]
    authority = Authority.open(Path(farm.folder / "controller" / "ca"))
    key = new_key()  # one key for all: making 500 keys is not what we measure
    running: list[asyncio.Task[None]] = []
    for begin in range(0, count, CONNECTS_AT_ONCE):
        stubs = [StubNode(f"stub-{i}", arrivals) for i in range(begin, min(count, begin + CONNECTS_AT_ONCE))]
        for stub in stubs:
            farm.http.post("/v1/nodes/invite", json={"name": stub.name}).raise_for_status()
            certificate = authority.sign_csr(certificate_request(key, stub.name), stub.name)
            running.append(asyncio.create_task(stub.run(address, key, certificate, authority.ca_pem)))
        await asyncio.gather(*(stub.ready.wait() for stub in stubs))
        progress(f"{begin + len(stubs)} of {count} nodes connected")
    return running


async def measure(farm: Farm, nodes: int, tasks: int) -> dict[str, float]:
    """Dispatch times of single tasks at a steady rate, and what the controller needs."""
    arrivals: dict[int, float] = {}
    running = await connect(farm, nodes, arrivals)
    try:
        agent = await asyncio.to_thread(lambda: farm.deploy(EXAMPLES / "echo.py", replicas=nodes, concurrency=4))
        controller = psutil.Process(farm.processes["controller"].pid)
        idle = controller.cpu_times()
        await asyncio.sleep(5.0)
        then = controller.cpu_times()
        idle_pct = (then.user + then.system - idle.user - idle.system) / 5.0 * 100
        times: list[float] = []
        async with httpx.AsyncClient(base_url=farm.gateway, headers=farm.http.headers, timeout=30) as http:
            for number in range(tasks):
                submitted = time.perf_counter()
                answer = await http.post("/v1/tasks?wait=10", json={"agent": agent, "input": {}})
                body: dict[str, Any] = answer.raise_for_status().json()
                times.append((arrivals[int(body["id"])] - submitted) * 1e3)
                if number % 100 == 0:
                    progress(f"{number} of {tasks} tasks")
        cuts = statistics.quantiles(times, n=100)
        mib = controller.memory_info().rss / 2**20
        return {"p50": cuts[49], "p99": cuts[98], "mib": mib, "idle_pct": idle_pct}
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=1_000)
    options = parser.parse_args()
    progress("starting a controller")
    with Farm(nodes=0) as farm:
        got = uvloop.run(measure(farm, options.nodes, options.tasks))
    progress("")
    print(f"{options.nodes} nodes on one controller, {options.tasks} single tasks, {machine()}")
    print(
        f"dispatch p50 {got['p50']:.2f} ms, p99 {got['p99']:.2f} ms; controller {got['mib']:.0f} MiB, "
        f"{got['idle_pct']:.0f} % of a core while nodes only beat"
    )
    print(json.dumps({"dispatch_p99_ms": round(got["p99"], 2), "controller_mib": round(got["mib"])}))


if __name__ == "__main__":
    main()
