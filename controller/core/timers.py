"""What the core does at a moment it chose before. Each kind is a timer's name and what it is about.

`turn.at(mono, timer)` sets one, for the moment `mono`; the part of its subject says what follows. Timers are not
stored: restore.py sets them again.
"""

from __future__ import annotations

from typing import NamedTuple

from controller.core.model import DeploymentName, NodeName, TaskId


class RetryDue(NamedTuple):
    """The backoff of a task is over."""

    task: TaskId


class QueueTimedOut(NamedTuple):
    """A task has waited for its first attempt as long as it may."""

    task: TaskId


class DrainDeadline(NamedTuple):
    """A drain has had its time."""

    node: NodeName


class RolloutDeadline(NamedTuple):
    """A step of a rollout has had its time."""

    deployment: DeploymentName


class PlaceAgain(NamedTuple):
    """A seat whose placements failed has waited long enough."""


Timer = RetryDue | QueueTimedOut | DrainDeadline | RolloutDeadline | PlaceAgain
