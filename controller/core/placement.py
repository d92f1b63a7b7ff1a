"""Placement: which node seats which replica. Filter, score, choose.

The functions here know nothing of the farm's state: they see offers (what a node has left) and wishes (what a replica
needs), and return a choice or reasons. Not fitting is an answer, not an error. Equal input gives equal output: ties go
to the lower node name.

Source: worst fit for `spread`, best fit for `pack` (Johnson 1974), taken by priority instead of by size. Wishes of one
deployment are chosen together from one heap of scored nodes, so k replicas on n nodes cost O(n + k log n).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controller.core.model import DeploymentName, NodeName, Policy, ReplicaId, Resources


class Reason(StrEnum):
    """Why a node cannot seat a replica. The words reach the operator unchanged."""

    NOT_READY = "node is not ready"
    CORDONED = "node is cordoned"
    DRAINING = "node is draining"
    LABEL_MISSING = "node lacks a required label"
    CAPABILITY_MISSING = "node lacks a required capability"
    CPU_FULL = "not enough CPU left to promise"
    MEMORY_PROMISED = "not enough memory left to promise"
    MEMORY_MEASURED = "not enough memory free as measured"
    GPU_FULL = "not enough GPUs free"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason, with what was asked and what was there."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(slots=True)
class Offer:
    """What one node has left for replicas. CPU in millicores (overcommit included), memory in MiB.

    blocked: reasons that hold for every replica. measured_mib: free memory as the daemon saw it, less what was
    promised since; None where it was never measured.
    """

    node: NodeName
    cpu_millicores: int
    memory_mib: int
    gpus: int
    cpu_total: int
    memory_total: int
    measured_mib: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    blocked: tuple[Refusal, ...] = ()
    seats: dict[DeploymentName, int] = field(default_factory=dict)  # replicas per deployment
    recent_failures: int = 0

    def take(self, deployment: DeploymentName, need: Resources) -> None:
        """Promise `need` to a replica of `deployment`."""
        self.cpu_millicores -= need.cpu_millicores
        self.memory_mib -= need.memory_mib
        self.gpus -= need.gpus
        if self.measured_mib is not None:
            self.measured_mib -= need.memory_mib
        self.seats[deployment] = self.seats.get(deployment, 0) + 1


@dataclass(frozen=True, slots=True)
class Wish:
    """One replica that wants a node."""

    replica: ReplicaId
    deployment: DeploymentName
    policy: Policy


@dataclass(slots=True)
class Placements:
    """The answer: every wish once, placed or refused."""

    chosen: dict[ReplicaId, NodeName] = field(default_factory=dict)
    refused: list[ReplicaId] = field(default_factory=list)


def place(wishes: Sequence[Wish], offers: Iterable[Offer]) -> Placements:
    """Choose a node for each wish, highest priority first. The offers are used up as nodes are chosen."""
    answer = Placements()
    offers = list(offers)
    for group in _groups(wishes):
        _place_group(group, offers, answer)
    return answer


def refusals(policy: Policy, offer: Offer) -> list[Refusal]:
    """Every reason why this node cannot seat such a replica; empty if it can."""
    need = policy.resources
    found = list(offer.blocked)
    for key, value in policy.constraints:
        if offer.labels.get(key) != value:
            has = offer.labels.get(key)
            found.append(Refusal(Reason.LABEL_MISSING, f"needs {key}={value}, has {key}={has}" if has is not None
                                 else f"needs {key}={value}"))  # fmt: skip
    missing = sorted(set(policy.capabilities) - offer.capabilities)
    if missing:
        found.append(Refusal(Reason.CAPABILITY_MISSING, ", ".join(missing)))
    if need.cpu_millicores > offer.cpu_millicores:
        found.append(Refusal(Reason.CPU_FULL, f"needs {need.cpu_millicores}m, {max(0, offer.cpu_millicores)}m left"))
    if need.memory_mib > offer.memory_mib:
        found.append(
            Refusal(Reason.MEMORY_PROMISED, f"needs {need.memory_mib} MiB, {max(0, offer.memory_mib)} MiB left")
        )
    elif offer.measured_mib is not None and need.memory_mib > offer.measured_mib:
        found.append(
            Refusal(Reason.MEMORY_MEASURED, f"needs {need.memory_mib} MiB, {max(0, offer.measured_mib)} MiB free")
        )
    if need.gpus > offer.gpus:
        found.append(Refusal(Reason.GPU_FULL, f"needs {need.gpus}, {max(0, offer.gpus)} free"))
    return found


def fits(policy: Policy, offer: Offer) -> bool:
    """The same judgement as `refusals`, without the words."""
    need = policy.resources
    return not (
        offer.blocked
        or need.memory_mib > offer.memory_mib
        or need.cpu_millicores > offer.cpu_millicores
        or need.gpus > offer.gpus
        or (offer.measured_mib is not None and need.memory_mib > offer.measured_mib)
        or any(offer.labels.get(key) != value for key, value in policy.constraints)
        or (policy.capabilities and not offer.capabilities.issuperset(policy.capabilities))
    )


def score(deployment: DeploymentName, policy: Policy, offer: Offer) -> float:
    """Lower is better.

    Replicas of the same deployment weigh most (a node loss should cost one of them), then data held on the node and
    recent failures, then how full the node would be: least for `spread`, most for `pack`.
    """
    fullness = 1.0 - min(
        _share(offer.memory_mib - policy.resources.memory_mib, offer.memory_total),
        _share(offer.cpu_millicores - policy.resources.cpu_millicores, offer.cpu_total),
    )
    value = fullness if policy.strategy == "spread" else -fullness
    if policy.strategy == "spread":
        value += 4.0 * offer.seats.get(deployment, 0)
    if policy.products:
        value -= 2.0 * len(offer.products.intersection(policy.products)) / len(policy.products)
    return value + min(offer.recent_failures, 4) * 0.5


def _share(left: int, total: int) -> float:
    return left / total if total else 0.0


def _groups(wishes: Sequence[Wish]) -> Iterator[list[Wish]]:
    """Wishes that ask for the same, together: by priority, then by the order in which they came."""
    groups: dict[tuple[DeploymentName, int], list[Wish]] = {}
    for wish in wishes:
        groups.setdefault((wish.deployment, id(wish.policy)), []).append(wish)
    yield from sorted(groups.values(), key=lambda group: -group[0].policy.priority)


def _place_group(group: list[Wish], offers: list[Offer], answer: Placements) -> None:
    deployment, policy = group[0].deployment, group[0].policy
    heap = [(score(deployment, policy, offer), offer.node, offer) for offer in offers if fits(policy, offer)]
    heapq.heapify(heap)
    for wish in group:
        if not heap:
            answer.refused.append(wish.replica)
            continue
        _, node, offer = heap[0]
        offer.take(deployment, policy.resources)
        answer.chosen[wish.replica] = node
        if fits(policy, offer):
            heapq.heapreplace(heap, (score(deployment, policy, offer), node, offer))
        else:
            heapq.heappop(heap)
