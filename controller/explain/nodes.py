"""Which nodes could take one more replica, and why the others could not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.core.agents.placement import Offer, Refusal, refusals, score
from controller.core.agents.seats import offer
from controller.core.model import DeploymentName, FarmState, NodeName
from controller.core.policy import Policy


@dataclass(frozen=True, slots=True)
class NodeFit:
    """Whether one more replica, or one more copy of a product, fits on a node."""

    node: NodeName
    reasons: tuple[Refusal, ...]
    """Every reason against it; empty where it fits."""
    score: float | None
    """Lower is better; None where it does not fit."""

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against this node."""
        return not self.reasons


def replica_fits(state: FarmState, deployment: DeploymentName, policy: Policy) -> tuple[NodeFit, ...]:
    """For each node, by name: whether one more such replica fits."""
    return fits_of([offer(state, state.nodes[name]) for name in sorted(state.nodes)], deployment, policy)


def fits_of(offers: Iterable[Offer], deployment: DeploymentName, policy: Policy) -> tuple[NodeFit, ...]:
    """The same for offers that may differ from what the nodes have left now."""
    return tuple(_fit(each, deployment, policy) for each in offers)


def _fit(node: Offer, deployment: DeploymentName, policy: Policy) -> NodeFit:
    reasons = tuple(refusals(policy, node))
    return NodeFit(node.node, reasons, None if reasons else round(score(deployment, policy, node), 3))
