"""Where market products are fed and why there: read-only questions to the state, answered in plain JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from agentfarm.errors import NotFound
from controller.core.agents.placement import Reason, Refusal
from controller.core.lives import NodeState, ProductState
from controller.core.market import feeders as feeding
from controller.core.market.products import assign, refusals
from controller.core.model import FarmState, Node, NodeName, Product, ProductName

UNSAID: Final = "unsaid"  # the node was told; its feed has not said anything of the product yet
SILENT: Final = "silent"  # the node is not heard: what its feed does now, nobody knows


def product_rows(state: FarmState) -> list[dict[str, Any]]:
    """Every product that is fed or should be, by name: those of the farm, and those of nodes' own settings alone.

    One pass over the nodes, however many products there are: this is asked with every scrape of the metrics.
    """
    feeding_now: dict[str, list[Node]] = {name: [] for node in state.nodes.values() for name in node.products}
    feeding_now.update((name, []) for name in state.products)
    for node in sorted(state.nodes.values(), key=lambda it: it.name):
        for name in node.assigned | node.products:
            if _feeds(node, name):
                feeding_now[name].append(node)
    return [_row(state, ProductName(name), feeding_now[name]) for name in sorted(feeding_now)]


def product_row(state: FarmState, name: ProductName) -> dict[str, Any]:
    """One product: what is wanted, and how each node that feeds it says it does. `copies` None: of own settings alone.

    is_good: as many nodes as wanted feed it well now.
    """
    nodes = sorted((node for node in state.nodes.values() if _feeds(node, name)), key=lambda it: it.name)
    return _row(state, name, nodes)


def _feeds(node: Node, name: str) -> bool:
    return name in node.assigned or (name in node.products and node.state is not NodeState.LOST)


def _row(state: FarmState, name: ProductName, feeding_now: list[Node]) -> dict[str, Any]:
    product = state.products.get(name)
    nodes = [_node_row(node, name) for node in feeding_now]
    good = sum(row["state"] == ProductState.GOOD for row in nodes)
    return {
        "name": name,
        "source": product.source if product is not None else "",
        "copies": product.copies if product is not None else None,
        "missing": product.missing if product is not None else 0,
        "is_good": good >= (product.copies if product is not None else len(nodes)) > 0,
        "nodes": nodes,
    }


def explain_product(state: FarmState, name: ProductName) -> dict[str, Any]:
    """Why a product is fed where it is: its copies, and every node with its load or all reasons. Raises NotFound."""
    product = state.products.get(name)
    if product is None:
        raise NotFound(f"Product {name!r} is not assigned across the farm.", known=sorted(state.products))
    row = product_row(state, name)
    wish, rows = feeding.wanted(product), []
    for feeder in sorted(feeding.feeders(state), key=lambda it: it.node):
        reasons = refusals(wish, feeder, product.nodes)
        node = state.nodes[feeder.node]
        rows.append(
            {
                "node": feeder.node,
                "fits": not reasons,
                "score": None if reasons else len(node.assigned) + len(node.products),
                "reasons": [str(reason) for reason in reasons],
            }
        )
    return {
        "product": name,
        "because": _because(product, row),
        "source": product.source,
        "copies": product.copies,
        "missing": product.missing,
        "copies_now": row["nodes"],
        "nodes": rows,
    }


def plan_products(state: FarmState, drained: set[NodeName]) -> list[dict[str, Any]]:
    """What draining these nodes would do with the products assigned to them: from where, to where or nowhere."""
    moving = sorted(name for node in drained for name in state.nodes[node].assigned)
    if not moving:
        return []
    everyone = [
        dataclasses.replace(it, is_leaving=True, blocked=(*it.blocked, Refusal(Reason.DRAINING)))
        if it.node in drained
        else it
        for it in feeding.feeders(state)
    ]
    answer = assign((feeding.wanted(it) for it in state.products.values()), everyone)
    rows = []
    for name in dict.fromkeys(moving):
        product = state.products[name]
        new = sorted(set(answer[name].keepers) - product.nodes - _owners(state, name))
        for node in sorted(product.nodes & drained):
            covered = answer[name].missing == 0 and not new
            to = new.pop(0) if new else None
            rows.append({"product": name, "from": node, "to": to, "action": "stop" if covered else "move"})
    return rows


def drain_blockers(state: FarmState, node: Node) -> list[str]:
    """What of its products still holds a draining node, in sentences."""
    sentences = []
    for name in sorted(node.assigned):
        product = state.products[name]
        heirs = [it for it in sorted(product.nodes) if it != node.name and state.nodes[it].drain is None]
        if product.missing or not heirs:
            sentences.append(f"no other node can feed {name}; it is given up at the deadline")
        else:
            said = ", ".join(f"{it} ({_node_row(state.nodes[it], name)['state']})" for it in heirs)
            sentences.append(f"{name} waits until it is good on {said}")
    if not sentences and node.takes_products and node.fed is not None:
        sentences = [f"its feed has not given up {name} yet" for name in sorted(node.fed.keys() - node.products)]
    return sentences


def _owners(state: FarmState, name: ProductName) -> set[NodeName]:
    return {node.name for node in state.nodes.values() if name in node.products}


def _node_row(node: Node, name: str) -> dict[str, Any]:
    status = node.fed.get(name) if node.fed is not None else None
    said, reason = (status.state.value, status.reason) if status is not None else (UNSAID, "")
    if node.state is not NodeState.READY:
        said, reason = SILENT, f"node is {node.state.value}"
    return {
        "node": node.name,
        "state": said,
        "reason": reason,
        "is_assigned": name in node.assigned,
        "is_leaving": node.drain is not None,
    }


def _because(product: Product, row: dict[str, Any]) -> str:
    if product.missing:
        return f"no node can take {product.missing} of {product.copies} copies"
    if any(it["is_leaving"] and it["is_assigned"] for it in row["nodes"]):
        return "it is being moved off a node that is drained"
    if row["is_good"]:
        return "every copy is good"
    late = [f"{it['node']} is {it['state']}" + f": {it['reason']}" * bool(it["reason"]) for it in row["nodes"]
            if it["state"] != ProductState.GOOD]  # fmt: skip
    return f"every copy has a node; {', '.join(late)}"
