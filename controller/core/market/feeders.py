"""From the farm's state to the assignment of market products and back: feeders out of nodes, copies for products.

Products are assigned before replicas are placed, in the same turn: so replicas follow their data when a node is lost
or drained.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentfarm.errors import CannotPlace, FarmError, InvalidRequest, NotFound
from agentfarm.limits import PRODUCT_NAME_CHARS_MAX
from agentfarm.names import is_product_name
from controller.core.agents import seats as seating
from controller.core.commands import AddProducts, NewProduct, RemoveProducts
from controller.core.lives import NodeState, ProductState
from controller.core.market.products import Assignment, Feeder, Wish, assign, can_ever_feed
from controller.core.model import (
    COPIES_MAX,
    PRODUCTS_MAX,
    FarmState,
    Node,
    NodeName,
    Product,
    ProductName,
)
from controller.core.turn import Turn

# ------------------------------------------------------------------ by operators


def add(turn: Turn, command: AddProducts) -> list[ProductName] | FarmError:
    """Have products fed. A product that is known already takes the new wish."""
    products = turn.state.products
    new = {wish.name for wish in command.products} - products.keys()
    everyone = feeders(turn.state)
    for problem in (_problem(turn.state, everyone, wish) for wish in command.products):
        if problem is not None:
            return problem
    if len(products) + len(new) > PRODUCTS_MAX:
        return InvalidRequest(f"The farm feeds at most {PRODUCTS_MAX:,} products.", limit="PRODUCTS_MAX")
    changed = [wish.name for wish in command.products if _add(turn, wish)]
    turn.is_feeding = turn.is_feeding or bool(changed)
    return changed


def remove(turn: Turn, command: RemoveProducts) -> FarmError | None:
    """Have products fed no more. Data that was stored stays where it is."""
    state = turn.state
    for name in command.products:
        if name not in state.products:
            return NotFound(f"Product {name!r} is not assigned across the farm.", known=sorted(state.products))
    for name in dict.fromkeys(command.products):
        product = state.products.pop(name)
        for node in product.nodes:
            state.nodes[node].assigned.discard(name)
            turn.desired.add(node)
        turn.removed(product)
        turn.tell("product.removed", f"product {name} is fed no more", product=name, nodes=sorted(product.nodes))
    return None


def _problem(state: FarmState, everyone: list[Feeder], new: NewProduct) -> FarmError | None:
    """What is wrong with a wish."""
    if not is_product_name(new.name):
        return InvalidRequest(
            f"{new.name!r} cannot be the name of a product.",
            remedy=f"As the venue writes it, for example BTC-USD: at most {PRODUCT_NAME_CHARS_MAX} letters, digits"
            " and - _ . : /, beginning with a letter or digit.",
        )
    if new.copies is not None and not 1 <= new.copies <= COPIES_MAX:
        return InvalidRequest(
            f"{new.name} cannot have {new.copies} copies.", remedy=f"1 to {COPIES_MAX}.", limit="COPIES_MAX"
        )
    old = state.products.get(new.name)
    source = new.source if new.source is not None else old.source if old is not None else ""
    wish = Wish(new.name, source)
    if not (old is not None and old.source == source) and not any(can_ever_feed(wish, feeder) for feeder in everyone):
        return _no_feeder(wish, everyone)
    return None


def _no_feeder(wish: Wish, everyone: Iterable[Feeder]) -> CannotPlace:
    sources = sorted({feeder.source for feeder in everyone if feeder.takes_products and feeder.source})
    if wish.source and sources:
        return CannotPlace(
            f"No node's feed has the source {wish.source!r}.", remedy=f"There are: {', '.join(sources)}.", known=sources
        )
    return CannotPlace(
        f"No node has a feed that could take {wish.product}.",
        remedy="Set `market` with `takes_products: true` in a node's settings: docs/market-data.md.",
    )


def _add(turn: Turn, new: NewProduct) -> bool:
    """Make or change a product; false if it is so already."""
    state = turn.state
    product, is_new = state.products.get(new.name), False
    if product is None:
        product, is_new = Product(new.name, added_at=turn.now.wall), True
        state.products[new.name] = product
    before = (product.source, product.copies)
    product.source = product.source if new.source is None else new.source
    product.copies = product.copies if new.copies is None else new.copies
    if not is_new and (product.source, product.copies) == before:
        return False
    turn.changed(product)
    where = f"{product.copies} node{'s' * (product.copies > 1)}" + f" of {product.source}" * bool(product.source)
    turn.tell("product.added" if is_new else "product.changed", f"product {product.name} is to be fed by {where}",
              product=product.name, copies=product.copies, source=product.source)  # fmt: skip
    return True


# ------------------------------------------------------------------ each turn


def assign_products(turn: Turn) -> None:
    """Give every product its nodes, if something changed that may matter to that."""
    if not turn.is_feeding or not turn.state.products:
        return
    turn.is_feeding = False
    everyone = feeders(turn.state)
    answer = assign((wish_of(product) for product in turn.state.products.values()), everyone)
    by_name = {feeder.node: feeder for feeder in everyone}
    for name in sorted(answer):
        _apply(turn, turn.state.products[name], answer[name], by_name)


def feeders(state: FarmState) -> list[Feeder]:
    """Every node as assignment sees it."""
    return [_feeder(node) for node in state.nodes.values()]


def wish_of(product: Product) -> Wish:
    """A product as assignment sees it."""
    return Wish(product.name, product.source, product.copies, frozenset(product.nodes))


def _feeder(node: Node) -> Feeder:
    return Feeder(
        node.name, node.takes_products, node.market_source, node.products, _good(node), seating.blocked(node),
        is_gone=node.state in (NodeState.LOST, NodeState.JOINING), is_leaving=node.drain is not None,
        is_forced=node.drain is not None and node.drain.is_forced,
    )  # fmt: skip


def _good(node: Node) -> frozenset[str]:
    """What it feeds well. A daemon of before this release says nothing of its feed: its own products count as good."""
    if node.state is not NodeState.READY:
        return frozenset()
    if node.fed is None:
        return frozenset() if node.takes_products else node.products
    return frozenset(name for name, status in node.fed.items() if status.state is ProductState.GOOD)


def _apply(turn: Turn, product: Product, answer: Assignment, by_name: dict[NodeName, Feeder]) -> None:
    nodes, before = turn.state.nodes, product.nodes
    missing, product.missing = product.missing, answer.missing
    if answer.holders != before:
        product.nodes = set(answer.holders)
        turn.changed(product)
        for name in sorted(answer.holders - before):
            nodes[name].assigned.add(product.name)
            turn.desired.add(name)
            turn.is_placing = True
            turn.tell("product.assigned", f"product {product.name} is assigned to {name}", node=name,
                      product=product.name)  # fmt: skip
        for name in sorted(before - answer.holders):
            _release(turn, product, answer, name, by_name.get(name))
    if answer.missing > missing:
        turn.tell("product.unplaced", f"no node can take {answer.missing} of {product.copies} copies of {product.name}",
                  severity="warning", product=product.name, missing=answer.missing)  # fmt: skip


def _release(turn: Turn, product: Product, answer: Assignment, name: NodeName, feeder: Feeder | None) -> None:
    node = turn.state.nodes.get(name)
    if node is not None:
        node.assigned.discard(product.name)
        turn.desired.add(name)
    reason = _why_released(product, feeder)
    others = [keeper for keeper in answer.keepers if keeper != name]
    if reason == "not_needed" or not others:
        turn.tell("product.released", f"{name} feeds {product.name} no more ({reason})", node=name,
                  severity="info" if others else "warning", product=product.name, reason=reason)  # fmt: skip
    else:
        turn.tell("product.moved", f"product {product.name} moved from {name} ({reason}) to {', '.join(others)}",
                  node=name, product=product.name, reason=reason, to=others)  # fmt: skip


def _why_released(product: Product, feeder: Feeder | None) -> str:
    if feeder is None or feeder.is_gone:
        return "node_lost"
    if feeder.is_leaving:
        return "drain_deadline" if feeder.is_forced else "drained"
    if product.name in feeder.own:
        return "named by its own settings"
    return "not_needed" if can_ever_feed(Wish(product.name, product.source), feeder) else "feed_changed"
