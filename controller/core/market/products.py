"""Assignment: which nodes feed which market product. Filter, score, choose.

A product that the operator wants fed is a promise of `copies` feeds on different nodes. Which nodes must do so is
durable in the product's row and reaches each node in its list; what a node's own settings name is a copy as well. A
copy that holds is never moved for balance: moving one costs a gap at worst and a snapshot at best. A node that is lost
feeds nothing, so its products go elsewhere at once; a silent one may feed on, so nothing moves. A node that is drained,
or one too many, feeds on until as many copies as wanted are good without it, or until its drain's deadline.

The functions here see feeders (nodes) and wishes (products), and know nothing of the farm's state. A copy that no node
can take is an answer, not an error. Equal input gives equal output: ties go to the lower name.

Source: greedy list scheduling (Graham 1966) on unit weights, the least loaded node first, which is the optimum where
all nodes can take all products; what is already placed stays, as in Kubernetes' and Nomad's schedulers. Products that
ask for a source choose first. One heap of nodes per source: p new copies on n nodes cost O((n + p) log n).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.core.agents.placement import Reason, Refusal
from controller.core.model import NodeName, ProductName


@dataclass(frozen=True, slots=True)
class Feeder:
    """One node as assignment sees it.

    own: products of its own settings. good: those it feeds well now, by its own word. blocked: reasons that hold
    against anything new.
    """

    node: NodeName
    takes_products: bool = True
    source: str = ""
    own: frozenset[str] = frozenset()
    good: frozenset[str] = frozenset()
    blocked: tuple[Refusal, ...] = ()
    is_gone: bool = False
    """Lost, or it never joined: it feeds nothing."""
    is_leaving: bool = False
    """It is being drained."""
    is_forced: bool = False
    """... and its deadline was hit: it gives up everything now."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One product, and the nodes that must feed it."""

    product: ProductName
    source: str = ""
    copies: int = 1
    holders: frozenset[NodeName] = frozenset()


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer for one product.

    keepers: nodes that count as its copies, own ones too. extras: nodes that feed on until the keepers are good.
    missing: copies that no node can take.
    """

    keepers: tuple[NodeName, ...]
    extras: tuple[NodeName, ...]
    holders: frozenset[NodeName]
    missing: int = 0


def assign(wishes: Iterable[Wish], feeders: Sequence[Feeder]) -> dict[ProductName, Assignment]:
    """Choose nodes for every product. Every product is answered once."""
    by_name = {feeder.node: feeder for feeder in feeders}
    owners: dict[str, list[Feeder]] = {}
    for feeder in feeders:
        for product in feeder.own:
            owners.setdefault(product, []).append(feeder)
    ordered = sorted(wishes, key=lambda wish: (not wish.source, wish.product))  # the pickiest first
    answer = {wish.product: _keep(wish, by_name, owners.get(wish.product, ())) for wish in ordered}
    load = Counter(node for assignment in answer.values() for node in assignment.holders)
    load.update({feeder.node: len(feeder.own) for feeder in feeders})
    shelves: dict[str, Shelf] = {}
    for wish in ordered:
        if answer[wish.product].missing:
            shelf = shelves.get(wish.source)
            if shelf is None:
                shelf = shelves[wish.source] = Shelf(wish.source, feeders, load)
            answer[wish.product] = shelf.fill(wish, answer[wish.product])
    return answer


def refusals(wish: Wish, feeder: Feeder, holders: Container[NodeName]) -> list[Refusal]:
    """Every reason why this node cannot take one more copy; empty if it can."""
    reasons = list(feeder.blocked)
    if not feeder.takes_products:
        reasons.append(Refusal(Reason.NO_FEED))
    elif not _has_source(wish, feeder):
        reasons.append(Refusal(Reason.OTHER_SOURCE, f"needs {wish.source}, has {feeder.source or 'none'}"))
    if feeder.node in holders or wish.product in feeder.own:
        reasons.append(Refusal(Reason.FEEDS_IT))
    return reasons


def can_ever_feed(wish: Wish, feeder: Feeder) -> bool:
    """Whether the node could be a copy, were it ready, in service and free of this product."""
    return (feeder.takes_products or wish.product in feeder.own) and _has_source(wish, feeder)


# ------------------------------------------------------------------ what stays


def _keep(wish: Wish, by_name: Mapping[NodeName, Feeder], owners: Iterable[Feeder]) -> Assignment:
    """The copies there are: own ones first, for they cannot be taken away, then those that are good."""
    product = wish.product
    own = [feeder for feeder in owners if not feeder.is_gone and _has_source(wish, feeder)]
    held = [by_name[name] for name in wish.holders if name in by_name and _may_hold(wish, by_name[name])]
    staying = sorted(
        (feeder for feeder in (*own, *held) if not feeder.is_leaving),
        key=lambda feeder: (product not in feeder.own, product not in feeder.good, bool(feeder.blocked), feeder.node),
    )
    keepers = staying[: wish.copies]
    keeper_names = {feeder.node for feeder in keepers}
    relieved = sorted(
        (feeder for feeder in held if feeder.node not in keeper_names),
        key=lambda feeder: (product not in feeder.good, feeder.is_leaving, feeder.node),
    )
    shortfall = wish.copies - sum(product in feeder.good for feeder in keepers)
    extras = relieved[:shortfall]
    holders = {feeder.node for feeder in (*keepers, *extras)} & wish.holders - {feeder.node for feeder in own}
    return Assignment(
        tuple(feeder.node for feeder in keepers), tuple(feeder.node for feeder in extras), frozenset(holders),
        wish.copies - len(keepers),
    )  # fmt: skip


def _may_hold(wish: Wish, feeder: Feeder) -> bool:
    return (
        not (feeder.is_gone or feeder.is_forced)
        and feeder.takes_products
        and _has_source(wish, feeder)
        and wish.product not in feeder.own
    )


def _has_source(wish: Wish, feeder: Feeder) -> bool:
    return not wish.source or wish.source == feeder.source


# ------------------------------------------------------------------ what is new


@dataclass(slots=True)
class Shelf:
    """The nodes that may take a new product of one source, the least loaded first.

    `load` is shared with the other shelves, so an entry may be too low; it is put back where it belongs when it is met.
    """

    source: str
    feeders: Sequence[Feeder]
    load: Counter[NodeName]
    _heap: list[tuple[int, NodeName, Feeder]] = field(init=False)

    def __post_init__(self) -> None:
        self._heap = [
            (self.load[feeder.node], feeder.node, feeder)
            for feeder in self.feeders
            if feeder.takes_products and not feeder.blocked and (not self.source or feeder.source == self.source)
        ]
        heapq.heapify(self._heap)

    def fill(self, wish: Wish, assignment: Assignment) -> Assignment:
        """Choose a node for each missing copy, as far as there are any."""
        chosen: list[NodeName] = []
        passed: list[tuple[int, NodeName, Feeder]] = []
        while self._heap and len(chosen) < assignment.missing:
            count, node, feeder = heapq.heappop(self._heap)
            if count < self.load[node]:
                heapq.heappush(self._heap, (self.load[node], node, feeder))
            elif node in assignment.holders or wish.product in feeder.own:
                passed.append((count, node, feeder))
            else:
                chosen.append(node)
                self.load[node] += 1
                passed.append((self.load[node], node, feeder))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return Assignment(
            (*assignment.keepers, *chosen), assignment.extras, assignment.holders.union(chosen),
            assignment.missing - len(chosen),
        )  # fmt: skip
