"""What the core does about agents: deployments, their versions and replicas."""

from __future__ import annotations

from typing import Final

from controller.core.agents import deployments, rollouts, seats
from controller.core.commands import Deploy, Remove, Rollback, Scale
from controller.core.parts import Part
from controller.core.timers import PlaceAgain, RolloutDeadline

AGENTS: Final = Part(
    "agents",
    commands={
        Deploy: deployments.deploy,
        Scale: deployments.scale,
        Rollback: deployments.rollback,
        Remove: deployments.remove,
    },
    timers={RolloutDeadline: rollouts.rollout_deadline, PlaceAgain: seats.place_again},
)
