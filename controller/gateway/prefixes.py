"""Names and ids as people give them: whole, or as a unique prefix."""

from __future__ import annotations

from agentfarm.errors import NotFound
from agentfarm.names import resolve, suggestion
from controller.core.model import DeploymentName, FarmState, NodeName, ProductName, ReplicaId


def find_deployment(state: FarmState, given: str) -> DeploymentName:
    """The deployment of that name or unique prefix. Raises NotFound with the nearest name, or InvalidRequest."""
    if given in state.deployments:
        return DeploymentName(given)
    try:
        return DeploymentName(resolve(given, state.deployments, "agent"))
    except NotFound as error:
        if not state.deployments:
            error.remedy = "Nothing is deployed yet: farmctl deploy PATH."
        raise


def find_node(state: FarmState, given: str) -> NodeName:
    """The node of that name or unique prefix."""
    return NodeName(given) if given in state.nodes else NodeName(resolve(given, state.nodes, "node"))


def find_replica(state: FarmState, given: str) -> ReplicaId:
    """The replica of that id, or of `deployment/seat`: there the newest one that is not retiring."""
    if is_number(given) and ReplicaId(int(given)) in state.replicas:
        return ReplicaId(int(given))
    name, slash, seat = given.rpartition("/")
    if slash and is_number(seat):
        deployment = find_deployment(state, name)
        seated = [r for r in state.replicas.values() if r.deployment == deployment and r.seat == int(seat)]
        if seated:
            return min(seated, key=lambda replica: (replica.is_retiring, -replica.id)).id
    raise NotFound(
        f"There is no replica {given!r}.",
        remedy="Name it by id or as deployment/seat; 'farmctl status' lists them. Ended replicas are forgotten.",
    )


def find_product(state: FarmState, given: str) -> ProductName:
    """The product of exactly that name, assigned across the farm. Raises NotFound with the nearest name."""
    if given in state.products:
        return ProductName(given)
    owners = sorted(node.name for node in state.nodes.values() if given in node.products)
    if owners:
        raise NotFound(
            f"Product {given!r} is fed by settings of {', '.join(owners)} alone.",
            remedy="Take it out of `market.products` there; it is not assigned across the farm.",
        )
    none = "None is yet: farmctl feed add PRODUCT."
    remedy = suggestion(given, state.products) or ("'farmctl feed products' lists them." if state.products else none)
    raise NotFound(f"Product {given!r} is not assigned across the farm.", remedy=remedy)


def is_number(text: str) -> bool:
    """Whether the text is a plain decimal number that fits an id."""
    return text.isascii() and text.isdigit() and len(text) <= 18
