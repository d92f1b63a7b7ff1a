"""Placement: which node seats which replica. Filter, score, choose.

The functions here know nothing of the farm's state: they see offers (what a node has left) and wishes (what a replica
needs), and return a choice or reasons. Not fitting is an answer, not an error. Equal input gives equal output: ties go
to the lower node name.

Source: worst fit for `spread`, best fit for `pack` (Johnson 1974), taken by priority instead of by size. Wishes that
ask for the same are chosen from one heap of scored nodes, so k replicas of s different shapes on n nodes cost
O(s n + k log n), however many deployments they belong to.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.core.model import DeploymentName, NodeName, ReplicaId
from controller.core.policy import Policy, Resources

CROWD_WEIGHT: Final = 8.0  # more than the whole range of base_score
Shape = tuple[Resources, tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...], str]


class Reason(StrEnum):
    """Why a node cannot seat a replica, or feed a product. The words reach the operator unchanged."""

    NOT_READY = "node is not ready"
    CORDONED = "node is cordoned"
    DRAINING = "node is draining"
    LABEL_MISSING = "node lacks a required label"
    CAPABILITY_MISSING = "node lacks a required capability"
    CPU_FULL = "not enough CPU left to promise"
    MEMORY_PROMISED = "not enough memory left to promise"
    MEMORY_MEASURED = "not enough memory free as measured"
    GPU_FULL = "not enough GPUs free"
    NO_FEED = "node has no feed that takes products"
    OTHER_SOURCE = "its feed has another source"
    FEEDS_IT = "feeds it already"


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
    seats: dict[DeploymentName, int] = field(default_factory=dict)
    """Replicas per deployment."""
    recent_failures: int = 0

    def take(self, deployment: DeploymentName, need: Resources) -> None:
        """Promise `need` to a replica of `deployment`."""
        self.cpu_millicores -= need.cpu_millicores
        self.memory_mib -= need.memory_mib
        self.gpus -= need.gpus
        if self.measured_mib is not None:
            self.measured_mib -= need.memory_mib
        self.seats[deployment] = self.seats.get(deployment, 0) + 1

    def give_back(self, need: Resources, *, really_mib: int) -> None:
        """As if a replica that was promised `need`, and uses `really_mib`, had gone."""
        self.cpu_millicores += need.cpu_millicores
        self.memory_mib += need.memory_mib
        self.gpus += need.gpus
        if self.measured_mib is not None:
            self.measured_mib += really_mib


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
    shelves: dict[Shape, Shelf] = {}
    for group in _groups(wishes):
        shape = _shape(group[0].policy)
        shelf = shelves.get(shape)
        if shelf is None:
            shelf = shelves[shape] = Shelf(group[0].policy, offers)
        shelf.seat(group, answer)
    return answer


def refusals(policy: Policy, offer: Offer) -> list[Refusal]:
    """Every reason why this node cannot seat such a replica; empty if it can."""
    need = policy.resources
    reasons = list(offer.blocked)
    for key, value in policy.constraints:
        if offer.labels.get(key) != value:
            has = offer.labels.get(key)
            reasons.append(Refusal(Reason.LABEL_MISSING, f"needs {key}={value}, has {key}={has}" if has is not None
                                 else f"needs {key}={value}"))  # fmt: skip
    missing = sorted(set(policy.capabilities) - offer.capabilities)
    if missing:
        reasons.append(Refusal(Reason.CAPABILITY_MISSING, ", ".join(missing)))
    if need.cpu_millicores > offer.cpu_millicores:
        reasons.append(Refusal(Reason.CPU_FULL, f"needs {need.cpu_millicores}m, {max(0, offer.cpu_millicores)}m left"))
    if need.memory_mib > offer.memory_mib:
        reasons.append(
            Refusal(Reason.MEMORY_PROMISED, f"needs {need.memory_mib} MiB, {max(0, offer.memory_mib)} MiB left")
        )
    elif offer.measured_mib is not None and need.memory_mib > offer.measured_mib:
        reasons.append(
            Refusal(Reason.MEMORY_MEASURED, f"needs {need.memory_mib} MiB, {max(0, offer.measured_mib)} MiB free")
        )
    if need.gpus > offer.gpus:
        reasons.append(Refusal(Reason.GPU_FULL, f"needs {need.gpus}, {max(0, offer.gpus)} free"))
    return reasons


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

    For `spread`, replicas of the same deployment on the node weigh more than everything else together: a node loss
    should cost a deployment as little as can be. See `base_score` for the rest.
    """
    crowd = offer.seats.get(deployment, 0) if policy.strategy == "spread" else 0
    return CROWD_WEIGHT * crowd + base_score(policy, offer)


def base_score(policy: Policy, offer: Offer) -> float:
    """The part of the score that is the same for every deployment: between -3 and 3, lower is better.

    Data held on the node, then recent failures, then how full the node would be: least for `spread`, most for `pack`.
    """
    need = policy.resources
    fullness = 1.0 - min(
        (offer.memory_mib - need.memory_mib) / offer.memory_total if offer.memory_total else 0.0,
        (offer.cpu_millicores - need.cpu_millicores) / offer.cpu_total if offer.cpu_total else 0.0,
    )
    value = fullness if policy.strategy == "spread" else -fullness
    if policy.products:
        value -= 2.0 * len(offer.products.intersection(policy.products)) / len(policy.products)
    return value + min(offer.recent_failures, 4) * 0.5


def _groups(wishes: Sequence[Wish]) -> list[list[Wish]]:
    """Wishes of one deployment and version together: by priority, then by the order in which they came."""
    groups: dict[tuple[DeploymentName, Shape], list[Wish]] = {}
    for wish in wishes:
        groups.setdefault((wish.deployment, _shape(wish.policy)), []).append(wish)
    return sorted(groups.values(), key=lambda group: -group[0].policy.priority)


def _shape(policy: Policy) -> Shape:
    """What decides which nodes fit and how good they are."""
    return (policy.resources, policy.constraints, policy.capabilities, policy.products, policy.strategy)


class Shelf:
    """The nodes that fit one shape, best first.

    An entry of the heap may be older than its node's last placement. Filling a node makes it worse for `spread`, so an
    old entry comes up too early and is put back where it belongs; for `pack` it may come up late, which costs a little
    tightness and nothing else.
    """

    __slots__ = ("_heap", "_policy")

    def __init__(self, policy: Policy, offers: Sequence[Offer]) -> None:
        self._policy = policy
        self._heap = [(base_score(policy, offer), offer.node, offer) for offer in offers if fits(policy, offer)]
        heapq.heapify(self._heap)

    def seat(self, group: Sequence[Wish], answer: Placements) -> None:
        """Choose for wishes of one deployment: nodes without it first, then those that seat it least."""
        policy, deployment = self._policy, group[0].deployment
        is_spread = policy.strategy == "spread"
        crowded: list[tuple[int, float, NodeName, Offer]] = []  # nodes that seat this deployment already
        for wish in group:
            offer = self._best_empty(deployment, crowded) if is_spread else self._best()
            if offer is None and crowded:
                offer = heapq.heappop(crowded)[3]
            if offer is None:
                answer.refused.append(wish.replica)
                continue
            offer.take(deployment, policy.resources)
            answer.chosen[wish.replica] = offer.node
            if not fits(policy, offer):
                continue
            if is_spread:
                entry = (offer.seats[deployment], base_score(policy, offer), offer.node, offer)
                heapq.heappush(crowded, entry)
            else:
                heapq.heappush(self._heap, (base_score(policy, offer), offer.node, offer))
        for _, value, node, offer in crowded:
            heapq.heappush(self._heap, (value, node, offer))

    def _best(self) -> Offer | None:
        """Take the best node that still fits off the heap."""
        while self._heap:
            value, node, offer = self._heap[0]
            if not fits(self._policy, offer):
                heapq.heappop(self._heap)
                continue
            now = base_score(self._policy, offer)
            if now <= value:
                heapq.heappop(self._heap)
                return offer
            heapq.heapreplace(self._heap, (now, node, offer))
        return None

    def _best_empty(
        self, deployment: DeploymentName, crowded: list[tuple[int, float, NodeName, Offer]]
    ) -> Offer | None:
        """The best node that seats none of the deployment; the others met on the way are set aside."""
        while (offer := self._best()) is not None:
            count = offer.seats.get(deployment, 0)
            if not count:
                return offer
            heapq.heappush(crowded, (count, base_score(self._policy, offer), offer.node, offer))
        return None
