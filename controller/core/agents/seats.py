"""From the farm's state to placement and back: offers out of nodes, nodes for pending replicas, lists for daemons."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.agents.placement import Offer, Reason, Refusal, Wish, place
from controller.core.agents.rollouts import replica_placed
from controller.core.lives import NodeState, ReplicaState
from controller.core.model import FarmState, Node, Replica, ReplicaId
from controller.core.timers import PlaceAgain
from controller.core.transition import DesiredReplica, SetDesired
from controller.core.turn import Turn

GENERATION_EPOCH_SHIFT = 32  # a node's list has the generation epoch << 32 | counter
PLACE_AGAIN_S = 1.0  # measured memory changes silently: look again this often while something waits for a node


@dataclass(slots=True)
class LastPlacement:
    """What placement keeps between turns."""

    at: float = 0.0
    """mono"""


def place_again(turn: Turn, timer: PlaceAgain) -> None:
    """A seat has waited long enough: placement looks at it in this turn."""
    del timer
    turn.is_placing = True


def place_pending(turn: Turn) -> list[ReplicaId]:
    """Find a node for every replica that wants one and whose wait is over. Returns those that have none."""
    state, now, last = turn.state, turn.now.mono, turn.state.own(LastPlacement)
    if not state.pending or not (turn.is_placing or now - last.at >= PLACE_AGAIN_S):
        return []
    last.at = now
    wishes = [_wish(state, state.replicas[r]) for r in state.pending if state.replicas[r].not_before <= now]
    if not wishes:
        return []
    placements = place(wishes, [offer(state, node) for node in state.nodes.values()])
    for replica_id, name in placements.chosen.items():
        replica, node = state.replicas[replica_id], state.nodes[name]
        del state.pending[replica_id]
        replica.node = name
        node.replicas.add(replica_id)
        turn.move(replica, "placed")
        replica_placed(turn, replica)
        turn.desired.add(name)
        turn.tell("replica.placed", f"{replica.deployment}/{replica.seat} is placed on {name}", node=name,
                  deployment=replica.deployment, replica=replica_id, version=replica.version)  # fmt: skip
    return placements.refused


def send_desired(turn: Turn) -> None:
    """Send each touched node the whole list of what it should run and feed."""
    for name in sorted(turn.desired):
        node = turn.state.nodes.get(name)
        if node is None:
            continue
        # Not stored at each step: the epoch makes it grow across controllers, whose nodes remember the last one.
        node.desired_generation = max(node.desired_generation, turn.state.epoch << GENERATION_EPOCH_SHIFT) + 1
        if node.session:
            listed = [_desired(turn.state, turn.state.replicas[r]) for r in sorted(node.replicas)]
            turn.out.effects.append(
                SetDesired(
                    name, node.session, node.desired_generation, [d for d in listed if d is not None],
                    tuple(sorted(node.assigned)) if node.takes_products else None,
                )
            )  # fmt: skip


def offer(state: FarmState, node: Node) -> Offer:
    """What a node has left, as placement sees it."""
    limits = state.limits
    cpu_total = int(node.cpu_millicores * limits.cpu_overcommit)
    made = Offer(
        node=node.name, cpu_millicores=cpu_total, memory_mib=node.memory_mib, gpus=node.gpus, cpu_total=cpu_total,
        memory_total=node.memory_mib, labels=node.labels, capabilities=node.capabilities,
        products=node.products | node.assigned if node.assigned else node.products,
        measured_mib=node.measured.memory_available_mib if node.measured is not None else None,
        blocked=blocked(node), recent_failures=node.recent_failures,
    )  # fmt: skip
    for replica_id in node.replicas:
        replica = state.replicas[replica_id]
        need = state.deployments[replica.deployment].versions[replica.version].policy.resources
        made.take(replica.deployment, need)
        if made.measured_mib is not None and replica.state is not ReplicaState.STARTING:
            made.measured_mib += need.memory_mib  # what it really uses is in the measurement already
    return made


def blocked(node: Node) -> tuple[Refusal, ...]:
    """Why nothing new may be given to a node; empty if it may."""
    reasons = []
    if node.state is not NodeState.READY or not node.session:
        reasons.append(
            Refusal(Reason.NOT_READY, node.state.value if node.state is not NodeState.READY else "no stream")
        )
    if node.drain is not None:
        reasons.append(Refusal(Reason.DRAINING, node.drain.reason))
    elif node.is_cordoned:
        reasons.append(Refusal(Reason.CORDONED, node.cordon_reason))
    return tuple(reasons)


def _wish(state: FarmState, replica: Replica) -> Wish:
    policy = state.deployments[replica.deployment].versions[replica.version].policy
    return Wish(replica.id, replica.deployment, policy)


def _desired(state: FarmState, replica: Replica) -> DesiredReplica | None:
    """A replica as its node's list has it.

    A retiring one is listed as stopping until the daemon says that it is gone. After a drain's deadline its attempts
    were called back: then it is not listed, and stops at once.
    """
    version = state.deployments[replica.deployment].versions[replica.version]
    node = state.nodes[replica.node] if replica.node is not None else None
    if node is not None and node.drain is not None and node.drain.is_forced:
        return None
    return DesiredReplica(
        replica.id, replica.deployment, replica.seat, replica.version, version.digest, version.spec_json,
        is_stopping=replica.is_retiring,
    )  # fmt: skip
