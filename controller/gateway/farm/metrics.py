"""The controller's metrics, made from the live state and the engine's counters when they are asked for.

Labels hold nodes, deployments, products and states; never ids of tasks or replicas, whose number has no bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from agentfarm.errors import Unavailable
from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.model import FarmState
from controller.explain.products import fed_products
from controller.gateway.scope import Farm
from controller.metrics import EngineMetrics


def metrics_text(farm: Farm) -> bytes:
    """All metrics in Prometheus' text form; while this controller does not lead, those of the engine alone."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(namespace="agentfarm_controller", registry=registry)
    registry.register(_FarmCollector(farm))
    return generate_latest(registry)


class _FarmCollector(Collector):
    """One reading of the farm."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def collect(self) -> Iterator[Metric]:
        """Every metric of the farm."""
        yield from _engine_metrics(self._farm.engine.metrics)
        try:
            state = self._farm.state
        except Unavailable:
            yield GaugeMetricFamily("agentfarm_leading", "Whether this controller leads.", 0)
            return
        yield GaugeMetricFamily("agentfarm_leading", "Whether this controller leads.", 1)
        yield GaugeMetricFamily("agentfarm_epoch", "The leader's epoch.", state.epoch)
        yield from _node_metrics(state)
        yield from _deployment_metrics(state)
        yield from _replica_metrics(state)
        yield from _product_metrics(state)


def _engine_metrics(metrics: EngineMetrics) -> Iterator[Metric]:
    counters = {
        "agentfarm_engine_turns": ("Turns of the engine.", metrics.turns),
        "agentfarm_engine_commands": ("Commands decided.", metrics.commands),
        "agentfarm_engine_commits": ("Transactions committed.", metrics.commits),
        "agentfarm_engine_commit_failures": ("Transactions that failed.", metrics.commit_failures),
        "agentfarm_engine_recoveries": ("Times the state was read again.", metrics.recoveries),
        "agentfarm_engine_decide_seconds": ("Time spent deciding.", metrics.decide_s),
        "agentfarm_tasks_submitted": ("Tasks accepted.", metrics.tasks_submitted),
        "agentfarm_attempts_requeued": ("Attempts that went back to their queue.", metrics.attempts_requeued),
        "agentfarm_attempts_given_back": (
            "Attempts recalled before they began, from replicas busy for long.",
            metrics.attempts_given_back,
        ),
    }
    for name, (meaning, value) in counters.items():
        yield CounterMetricFamily(name, meaning, value)
    yield _commit_histogram(metrics)
    finished = CounterMetricFamily("agentfarm_tasks_finished", "Tasks that ended, by state.", labels=["state"])
    for state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.DEAD):
        finished.add_metric([state.value], metrics.tasks_finished.get(state.value, 0))
    yield finished


def _commit_histogram(metrics: EngineMetrics) -> Metric:
    cumulative, total = [], 0
    for bound, commits in sorted(metrics.commit_buckets.items()):
        total += commits
        cumulative.append((f"{bound:g}", float(total)))
    cumulative.append(("+Inf", float(metrics.commits)))
    return HistogramMetricFamily(
        "agentfarm_engine_commit_seconds", "Time of one transaction.", buckets=cumulative, sum_value=metrics.commit_s
    )


def _node_metrics(state: FarmState) -> Iterator[Metric]:
    nodes = GaugeMetricFamily("agentfarm_nodes", "Nodes by state.", labels=["state"])
    by_state = Counter(node.state for node in state.nodes.values())
    for item in NodeState:
        nodes.add_metric([item.value], by_state[item])
    yield nodes
    marks = GaugeMetricFamily("agentfarm_nodes_marked", "Nodes cordoned or draining.", labels=["mark"])
    marks.add_metric(["cordoned"], sum(node.is_cordoned for node in state.nodes.values()))
    marks.add_metric(["draining"], sum(node.drain is not None for node in state.nodes.values()))
    yield marks


def _deployment_metrics(state: FarmState) -> Iterator[Metric]:
    queued = GaugeMetricFamily("agentfarm_queue_depth_tasks", "Tasks that wait.", labels=["deployment"])
    leased = GaugeMetricFamily("agentfarm_leases", "Attempts leased to nodes.", labels=["deployment"])
    replicas = GaugeMetricFamily("agentfarm_replicas_wanted", "Replicas there should be.", labels=["deployment"])
    service = GaugeMetricFamily(
        "agentfarm_service_seconds", "What one attempt takes: a maximum that decays.", labels=["deployment"]
    )
    for deployment in state.deployments.values():
        queued.add_metric([deployment.name], deployment.queued)
        leased.add_metric([deployment.name], deployment.leased)
        replicas.add_metric([deployment.name], deployment.replicas_wanted)
        if deployment.service_s is not None:
            service.add_metric([deployment.name], deployment.service_s)
    yield from (queued, leased, replicas, service)


def _replica_metrics(state: FarmState) -> Iterator[Metric]:
    replicas = GaugeMetricFamily("agentfarm_replicas", "Replicas by state.", labels=["deployment", "state"])
    counts = Counter((replica.deployment, replica.state) for replica in state.replicas.values())
    for name in state.deployments:
        for item in ReplicaState:
            replicas.add_metric([name, item.value], counts[name, item])
    yield replicas


def _product_metrics(state: FarmState) -> Iterator[Metric]:
    """Market products: at most PRODUCTS_MAX of them, so each may have its label."""
    good = GaugeMetricFamily(
        "agentfarm_product_good", "Whether as many nodes as wanted feed it well.", labels=["product"]
    )
    missing = GaugeMetricFamily("agentfarm_product_copies_missing", "Copies that no node can take.", labels=["product"])
    for product in fed_products(state):
        good.add_metric([product.name], product.is_good)
        missing.add_metric([product.name], product.missing)
    yield from (good, missing)
