"""What the core does about agents: deployments, their versions and replicas."""

from __future__ import annotations

from typing import Final

from controller.core.agents import deployments, rollouts, seats
from controller.core.commands import Deploy, Remove, Rollback, Scale
from controller.core.model import Deployment, FarmState, Replica, Version
from controller.core.records import Table
from controller.core.timers import PlaceAgain, RolloutDeadline
from controller.core.turn import Part


def _put_version(state: FarmState, version: Version) -> None:
    state.deployments[version.deployment].versions[version.number] = version


AGENTS: Final = Part(
    "agents",
    tables=(
        Table(
            Deployment,
            "deployment",
            "name",
            things=lambda state: state.deployments.values(),
            put=lambda state, deployment: state.deployments.update({deployment.name: deployment}),
        ),
        Table(
            Version,
            "version",
            "deployment",
            "number",
            things=lambda state: [v for deployment in state.deployments.values() for v in deployment.versions.values()],
            put=_put_version,
        ),
        Table(
            Replica,
            "replica",
            "id",
            things=lambda state: state.replicas.values(),
            put=lambda state, replica: state.replicas.update({replica.id: replica}),
        ),
    ),
    commands={
        Deploy: deployments.deploy,
        Scale: deployments.scale,
        Rollback: deployments.rollback,
        Remove: deployments.remove,
    },
    timers={RolloutDeadline: rollouts.rollout_deadline, PlaceAgain: seats.place_again},
)
