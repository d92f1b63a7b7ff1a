"""What draining nodes would move and where to, and what still holds a node that is drained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from agentfarm.errors import NotFound
from controller.core.agents.placement import Offer, Reason, Refusal, Wish, place
from controller.core.agents.seats import offer
from controller.core.market import feeders as feeding
from controller.core.market.products import Feeder, assign
from controller.core.model import DeploymentName, FarmState, Node, NodeName, ProductName, Replica, ReplicaId
from controller.explain.products import product_copy


class Action(StrEnum):
    """What a drain does with a thing on the node."""

    MOVE = "move"
    """Another node must take it over."""
    STOP = "stop"
    """It ends there, and nothing has to replace it."""


@dataclass(frozen=True, slots=True)
class ReplicaMove:
    """What a drain would do with one replica."""

    replica: ReplicaId
    deployment: DeploymentName
    seat: int
    origin: NodeName
    target: NodeName | None
    """None: no node can take it, or none has to."""
    attempts: int
    """It holds this many now."""
    action: Action


@dataclass(frozen=True, slots=True)
class ProductMove:
    """What a drain would do with one product."""

    product: ProductName
    origin: NodeName
    target: NodeName | None
    """None: no node can take it, or none has to."""
    action: Action


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What draining nodes would move."""

    nodes: tuple[NodeName, ...]
    replicas: tuple[ReplicaMove, ...]
    products: tuple[ProductMove, ...]
    fits: bool
    """Whether every replica and product that must move finds another node."""


def plan_drain(state: FarmState, names: Sequence[NodeName]) -> DrainPlan:
    """What draining these nodes would move, where to, and what would find no place. Raises NotFound."""
    for name in names:
        if name not in state.nodes:
            raise NotFound(f"There is no node {name!r}.", known=sorted(state.nodes))
    drained = set(names)
    products = tuple(_product_moves(state, drained))
    offers: list[Offer] = [offer(state, node) for node in state.nodes.values() if node.name not in drained]
    for each in offers:
        each.products |= {move.product for move in products if move.target == each.node}
    leaving = [state.replicas[replica] for name in names for replica in sorted(state.nodes[name].replicas)]
    wishes = [_wish(state, replica) for replica in leaving if not replica.is_retiring]
    chosen = place(wishes, offers).chosen
    replicas = tuple(_replica_move(replica, chosen.get(replica.id)) for replica in leaving)
    fits = all(wish.replica in chosen for wish in wishes)
    fits = fits and all(move.target is not None or move.action is Action.STOP for move in products)
    return DrainPlan(tuple(names), replicas, products, fits)


def drain_blockers(state: FarmState, node: Node, limit: int) -> list[str]:
    """What still holds a draining node, in sentences, at most `limit` of them."""
    replicas = [state.replicas[replica] for replica in sorted(node.replicas)]
    sentences = [_replica_blocker(state, replica) for replica in replicas[:limit]]
    return (sentences + _product_blockers(state, node))[:limit]


# ------------------------------------------------------------------ moves


def _wish(state: FarmState, replica: Replica) -> Wish:
    policy = state.deployments[replica.deployment].versions[replica.version].policy
    return Wish(replica.id, replica.deployment, policy)


def _replica_move(replica: Replica, target: NodeName | None) -> ReplicaMove:
    assert replica.node is not None
    action = Action.STOP if replica.is_retiring else Action.MOVE
    return ReplicaMove(
        replica.id, replica.deployment, replica.seat, replica.node, target, len(replica.tokens), action
    )  # fmt: skip


def _product_moves(state: FarmState, drained: Set[NodeName]) -> Iterator[ProductMove]:
    """What would become of the products that are assigned to these nodes."""
    leaving = sorted(name for node in drained for name in state.nodes[node].assigned)
    if not leaving:
        return
    answer = assign((feeding.wish_of(product) for product in state.products.values()), _feeders(state, drained))
    for name in dict.fromkeys(leaving):
        product = state.products[name]
        owners = {node.name for node in state.nodes.values() if name in node.products}
        takers = sorted(set(answer[name].keepers) - product.nodes - owners)
        for node in sorted(product.nodes & drained):
            is_covered = answer[name].missing == 0 and not takers
            target = takers.pop(0) if takers else None
            yield ProductMove(name, node, target, Action.STOP if is_covered else Action.MOVE)


def _feeders(state: FarmState, drained: Set[NodeName]) -> list[Feeder]:
    """Every feeder as it would be if these nodes were drained."""
    draining = Refusal(Reason.DRAINING)
    return [
        dataclasses.replace(feeder, is_leaving=True, blocked=(*feeder.blocked, draining))
        if feeder.node in drained
        else feeder
        for feeder in feeding.feeders(state)
    ]


# ------------------------------------------------------------------ blockers


def _replica_blocker(state: FarmState, replica: Replica) -> str:
    name = f"{replica.deployment}/{replica.seat}"
    heir = _heir(state, replica)
    if replica.is_retiring and replica.tokens:
        return f"{name} finishes {len(replica.tokens)} running {'task' if len(replica.tokens) == 1 else 'tasks'}"
    if replica.is_retiring:
        return f"{name} is {replica.state.value}"
    if heir is None or heir.node is None:
        return f"{name} has no other node yet"
    return f"{name} waits for its successor on {heir.node}, which is {heir.state.value}"


def _heir(state: FarmState, replica: Replica) -> Replica | None:
    """The newer occupant of the same seat, if there is one."""
    siblings = (state.replicas[other] for other in state.deployments[replica.deployment].replicas)
    newer = [other for other in siblings if other.seat == replica.seat and other.id > replica.id]
    return max(newer, key=lambda other: other.id, default=None)


def _product_blockers(state: FarmState, node: Node) -> list[str]:
    sentences = []
    for name in sorted(node.assigned):
        product = state.products[name]
        heirs = [state.nodes[other] for other in sorted(product.nodes) if other != node.name]
        heirs = [heir for heir in heirs if heir.drain is None]
        if product.missing or not heirs:
            sentences.append(f"no other node can feed {name}; it is given up at the deadline")
        else:
            words = ", ".join(f"{heir.name} ({product_copy(heir, name).state})" for heir in heirs)
            sentences.append(f"{name} waits until it is good on {words}")
    if not sentences and node.takes_products and node.fed is not None:
        return [f"its feed has not given up {name} yet" for name in sorted(node.fed.keys() - node.products)]
    return sentences
