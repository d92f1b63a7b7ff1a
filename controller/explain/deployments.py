"""Why a deployment stands where it stands, and what a scale or a deploy would do to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agentfarm.errors import NotFound
from controller.core.agents.placement import Wish, place
from controller.core.agents.seats import offer
from controller.core.commands import Deploy
from controller.core.lives import ReplicaState
from controller.core.model import Deployment, DeploymentName, FarmState, Instant, NodeName, ReplicaId
from controller.core.policy import Policy
from controller.core.turn import Turn
from controller.explain.nodes import NodeFit, fits_of, replica_fits
from controller.explain.replicas import ReplicaStanding, standings


class DeploymentCause(Enum):
    """How a deployment does."""

    HALTED = "halted"
    PENDING = "pending"
    PROGRESSING = "progressing"
    REVERTED = "reverted"
    SEATED = "seated"


@dataclass(frozen=True, slots=True)
class DeploymentExplanation:
    """Every seat of a deployment, and every node."""

    deployment: DeploymentName
    cause: DeploymentCause
    because: str
    """The cause as a sentence."""
    replicas_wanted: int
    version: int
    queued: int
    leased: int
    replicas: tuple[ReplicaStanding, ...]
    nodes: tuple[NodeFit, ...]


@dataclass(frozen=True, slots=True)
class PlacedSeat:
    """A new seat, and the node that would take it."""

    seat: int
    node: NodeName


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """What bringing a deployment to another number of replicas would do."""

    deployment: DeploymentName
    before: int
    after: int
    placed: tuple[PlacedSeat, ...]
    refused: tuple[int, ...]
    """New seats that no node can take."""
    removed: tuple[int, ...]
    nodes: tuple[NodeFit, ...]
    """Each node as it would be then, so that it says why seats were refused."""


@dataclass(frozen=True, slots=True)
class SpecChange:
    """A key of a spec whose value changes, as `resources.memory_mib`."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class DeployPlan:
    """What a deploy would do."""

    replicas: ReplicaPlan
    version_before: int | None
    version_after: int
    replaced: tuple[int, ...]
    """Seats that would get the new version."""
    is_changed: bool
    is_code_changed: bool
    spec_changes: tuple[SpecChange, ...]


def explain_deployment(state: FarmState, name: DeploymentName, now: Instant) -> DeploymentExplanation:
    """Every seat of a deployment and every node with its reasons. Raises NotFound."""
    deployment = state.deployments.get(name)
    if deployment is None:
        raise NotFound(f"No agent {name!r} is deployed.", known=sorted(state.deployments))
    turn = Turn(state, now)
    cause, because = _cause(state, deployment)
    return DeploymentExplanation(
        deployment=name,
        cause=cause,
        because=because,
        replicas_wanted=deployment.replicas_wanted,
        version=deployment.version,
        queued=deployment.queued,
        leased=deployment.leased,
        replicas=standings(turn, deployment),
        nodes=replica_fits(state, name, turn.policy(deployment)),
    )


def plan_replicas(state: FarmState, name: DeploymentName, policy: Policy, replicas: int) -> ReplicaPlan:
    """What a scale to that many replicas would do: seats to add or remove, and where new ones would go."""
    deployment = state.deployments.get(name)
    seats = _seats(state, deployment)
    added = [seat for seat in range(replicas) if seat not in seats]
    offers = [offer(state, state.nodes[node]) for node in sorted(state.nodes)]
    answer = place([Wish(ReplicaId(seat), name, policy) for seat in added], offers)
    chosen = [(seat, answer.chosen.get(ReplicaId(seat))) for seat in added]
    return ReplicaPlan(
        deployment=name,
        before=deployment.replicas_wanted if deployment is not None else 0,
        after=replicas,
        placed=tuple(PlacedSeat(seat, node) for seat, node in chosen if node is not None),
        refused=tuple(int(seat) for seat in answer.refused),
        removed=tuple(sorted(seat for seat in seats if seat >= replicas)),
        nodes=fits_of(offers, name, policy),
    )


def plan_deploy(state: FarmState, command: Deploy) -> DeployPlan:
    """What a deploy would do: seats added and removed, and which would be replaced because the version changes."""
    deployment = state.deployments.get(command.name)
    replicas = command.replicas
    if replicas is None:
        replicas = deployment.replicas_wanted if deployment is not None else command.spec_replicas
    plan = plan_replicas(state, command.name, command.policy, replicas)
    current = deployment.versions[deployment.version] if deployment is not None else None
    is_same = current is not None and (current.digest, current.spec_json) == (command.digest, command.spec_json)
    seats = sorted(seat for seat in _seats(state, deployment) if seat < replicas)
    return DeployPlan(
        replicas=plan,
        version_before=current.number if current is not None else None,
        version_after=_version_after(deployment, is_same=is_same),
        replaced=() if is_same else tuple(seats),
        is_changed=not is_same or plan.before != plan.after,
        is_code_changed=current is None or current.digest != command.digest,
        spec_changes=_spec_changes(current.spec_json, command.spec_json) if current is not None else (),
    )


def _cause(state: FarmState, deployment: Deployment) -> tuple[DeploymentCause, str]:
    rollout = deployment.rollout
    if deployment.is_halted and rollout is not None:
        return DeploymentCause.HALTED, f"version {rollout.to_version} cannot run: {rollout.reason}"
    pending = [r for r in deployment.replicas if state.replicas[r].state is ReplicaState.PENDING]
    if pending:
        sentence = f"{len(pending)} of {deployment.replicas_wanted} replicas find no node"
        return DeploymentCause.PENDING, sentence
    if rollout is not None and rollout.state == "progressing":
        return DeploymentCause.PROGRESSING, f"version {rollout.to_version} is being rolled out"
    if rollout is not None and rollout.state == "reverted":
        return DeploymentCause.REVERTED, f"version {rollout.to_version} was taken back: {rollout.reason}"
    return DeploymentCause.SEATED, "every seat is taken"


def _seats(state: FarmState, deployment: Deployment | None) -> set[int]:
    return {state.replicas[replica].seat for replica in deployment.replicas} if deployment is not None else set()


def _version_after(deployment: Deployment | None, *, is_same: bool) -> int:
    if deployment is None:
        return 1
    return deployment.version if is_same else max(deployment.versions) + 1


def _spec_changes(before: str, after: str) -> tuple[SpecChange, ...]:
    old, new = dict(_flat(json.loads(before))), dict(_flat(json.loads(after)))
    if not old:
        return ()
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return tuple(SpecChange(key, old.get(key), new.get(key)) for key in keys)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
