"""Where market products are fed, how each of their nodes does, and why there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from agentfarm.errors import NotFound
from controller.core.lives import NodeState
from controller.core.market import feeders as feeding
from controller.core.market.products import refusals
from controller.core.model import FarmState, Node, NodeName, Product, ProductName
from controller.explain.nodes import NodeFit


class CopyState(StrEnum):
    """How a node feeds a product: the word of its feed (ProductState), or why there is none."""

    STARTING = "starting"
    GOOD = "good"
    DOUBTFUL = "doubtful"
    FAILED = "failed"
    UNSAID = "unsaid"
    """The node was asked to feed it; its feed has not reported on the product yet."""
    SILENT = "silent"
    """The node is silent, so what its feed does now is unknown."""


class ProductCause(Enum):
    """How a product does that is assigned across the farm."""

    MISSING = "missing"
    MOVING = "moving"
    GOOD = "good"
    NOT_YET_GOOD = "not_yet_good"


@dataclass(frozen=True, slots=True)
class ProductCopy:
    """One node that feeds a product."""

    node: NodeName
    state: CopyState
    reason: str
    is_assigned: bool
    """False: the node's own settings name the product."""
    is_leaving: bool
    """The node is drained; it feeds the product until another node does so well."""


@dataclass(frozen=True, slots=True)
class FedProduct:
    """A product that is fed, or should be."""

    name: ProductName
    source: str
    """Where its feeds must get it; empty: from any source."""
    copies: int | None
    """Nodes wanted at once. None: only nodes' own settings name the product."""
    missing: int
    """Copies that no node can take now."""
    is_good: bool
    """As many nodes as wanted feed it well now."""
    nodes: tuple[ProductCopy, ...]


@dataclass(frozen=True, slots=True)
class ProductExplanation:
    """Why a product is fed where it is."""

    product: FedProduct
    cause: ProductCause
    because: str
    """The cause as a sentence."""
    nodes: tuple[NodeFit, ...]
    """Whether each node could take one more copy."""


def fed_products(state: FarmState) -> list[FedProduct]:
    """Every product that is fed or should be, by name: those of the farm, and those of nodes' own settings alone.

    One pass over the nodes, however many products there are: every scrape of the metrics asks this.
    """
    feeding_now: dict[str, list[Node]] = {name: [] for node in state.nodes.values() for name in node.products}
    feeding_now.update((name, []) for name in state.products)
    for node in sorted(state.nodes.values(), key=lambda each: each.name):
        for name in node.assigned | node.products:
            if _feeds(node, name):
                feeding_now[name].append(node)
    return [_fed_product(state, ProductName(name), feeding_now[name]) for name in sorted(feeding_now)]


def fed_product(state: FarmState, name: ProductName) -> FedProduct:
    """One product: what is wanted, and how each node that feeds it does."""
    nodes = sorted((node for node in state.nodes.values() if _feeds(node, name)), key=lambda node: node.name)
    return _fed_product(state, name, nodes)


def explain_product(state: FarmState, name: ProductName) -> ProductExplanation:
    """Why a product is fed where it is: its copies, and every node with its load or all reasons. Raises NotFound."""
    product = state.products.get(name)
    if product is None:
        raise NotFound(f"Product {name!r} is not assigned across the farm.", known=sorted(state.products))
    status, wish = fed_product(state, name), feeding.wish_of(product)
    fits = []
    for feeder in sorted(feeding.feeders(state), key=lambda each: each.node):
        node, reasons = state.nodes[feeder.node], tuple(refusals(wish, feeder, product.nodes))
        fits.append(NodeFit(feeder.node, reasons, None if reasons else len(node.assigned) + len(node.products)))
    cause, because = _cause(product, status)
    return ProductExplanation(status, cause, because, tuple(fits))


def product_copy(node: Node, name: str) -> ProductCopy:
    """How one node feeds a product."""
    status = node.fed.get(name) if node.fed is not None else None
    state, reason = (CopyState(status.state), status.reason) if status is not None else (CopyState.UNSAID, "")
    if node.state is not NodeState.READY:
        state, reason = CopyState.SILENT, f"node is {node.state.value}"
    return ProductCopy(node.name, state, reason, name in node.assigned, node.drain is not None)


def _feeds(node: Node, name: str) -> bool:
    return name in node.assigned or (name in node.products and node.state is not NodeState.LOST)


def _fed_product(state: FarmState, name: ProductName, nodes: Sequence[Node]) -> FedProduct:
    product = state.products.get(name)
    copies = tuple(product_copy(node, name) for node in nodes)
    good = sum(copy.state is CopyState.GOOD for copy in copies)
    if product is None:
        return FedProduct(name, "", None, 0, good >= len(copies) > 0, copies)
    return FedProduct(name, product.source, product.copies, product.missing, good >= product.copies > 0, copies)


def _cause(product: Product, status: FedProduct) -> tuple[ProductCause, str]:
    if product.missing:
        return ProductCause.MISSING, f"no node can take {product.missing} of {product.copies} copies"
    if any(copy.is_leaving and copy.is_assigned for copy in status.nodes):
        return ProductCause.MOVING, "it is being moved off a node that is drained"
    if status.is_good:
        return ProductCause.GOOD, "every copy is good"
    late = [f"{copy.node} is {copy.state}" + (f": {copy.reason}" if copy.reason else "") for copy in status.nodes
            if copy.state is not CopyState.GOOD]  # fmt: skip
    return ProductCause.NOT_YET_GOOD, f"every copy has a node; {', '.join(late)}"
