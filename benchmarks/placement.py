"""How fast the placement core is, and how its cost grows: `python -m benchmarks.placement`.

Pure core, one core, no I/O. A farm of n nodes is empty; 5 n replicas are placed, half of them in deployments of ten,
half in deployments of one, of three different shapes, as `place` sees them in one turn. CPU time; the median of five.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time

from controller.core.agents.placement import Offer, Wish, place
from controller.core.model import DeploymentName, NodeName, ReplicaId
from controller.core.policy import Policy, Resources

SIZES = (100, 300, 1_000, 3_000, 10_000)
SHAPES = (
    Policy(Resources(100, 256)),
    Policy(Resources(250, 512), constraints=(("disk", "ssd"),)),
    Policy(Resources(50, 128), products=("BTC-USD",), strategy="pack"),
)


def farm(nodes: int) -> list[Offer]:
    """Empty nodes of the reference kind: 4 cores, 16 GB, half with an SSD, a third with market data."""
    return [
        Offer(
            NodeName(f"node-{i:05d}"), cpu_millicores=32_000, memory_mib=14_000, gpus=0, cpu_total=32_000,
            memory_total=14_000, measured_mib=14_000, labels={"disk": "ssd" if i % 2 else "hdd"},
            products=frozenset({"BTC-USD"} if i % 3 == 0 else ()),
        )
        for i in range(nodes)
    ]  # fmt: skip


def wishes(count: int) -> list[Wish]:
    """`count` replicas, half in deployments of ten, half alone."""
    made = []
    for i in range(count):
        name = f"many-{i // 10}" if i < count // 2 else f"one-{i}"
        shape = SHAPES[(i // 10 if i < count // 2 else i) % len(SHAPES)]
        made.append(Wish(ReplicaId(i), DeploymentName(name), shape))
    return made


def seconds(nodes: int) -> float:
    """CPU seconds to place 5 replicas per node. Every one of them must find its place."""
    asked, offers = wishes(5 * nodes), farm(nodes)
    started = time.process_time()
    answer = place(asked, offers)
    took = time.process_time() - started
    assert len(answer.chosen) == len(asked), "the benchmark's farm is too small for its replicas"
    return took


def main() -> None:
    """Print a table for people and one JSON object for programs."""
    print(f"{'nodes':>8} {'replicas':>9} {'seconds':>9} {'placements/s':>13}")
    medians = {}
    for nodes in SIZES:
        print(f"placing on {nodes} nodes ...", end="\r", file=sys.stderr, flush=True)
        medians[nodes] = statistics.median(seconds(nodes) for _ in range(5))
        print(f"{nodes:>8} {5 * nodes:>9} {medians[nodes]:>9.3f} {5 * nodes / medians[nodes]:>13,.0f}")
    growth = math.log(medians[10_000] / medians[100]) / math.log(100)
    print(json.dumps({"placements_per_s": round(5_000 / medians[1_000]), "growth_exponent": round(growth, 3)}))


if __name__ == "__main__":
    main()
