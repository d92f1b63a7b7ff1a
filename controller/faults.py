"""What a command becomes whose turn failed, and what its caller hears. Pure: `controller/turns.py` says when."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from agentfarm.errors import FarmError, Unavailable
from controller.core.commands import AttemptsEnded, Command, FactSetAside, NodeReport, ReplicasReported

WHY_CHARS_MAX: Final = 1_000


def without(command: Command, fault: Exception) -> Sequence[Command]:
    """What takes the place of a command at fault.

    A report of several facts becomes one report for each, so that one fact alone is set aside. A fact of a node that
    can never succeed is set aside with an event; a wish is gone, because its caller hears of the fault.
    """
    if isinstance(command, AttemptsEnded) and len(command.results) > 1:
        return [dataclasses.replace(command, results=(result,)) for result in command.results]
    if isinstance(command, ReplicasReported) and len(command.replicas) > 1:
        return [dataclasses.replace(command, replicas=(news,)) for news in command.replicas]
    if not isinstance(command, NodeReport) or isinstance(command, FactSetAside):
        return []
    result = command.results[0] if isinstance(command, AttemptsEnded) and command.results else None
    return [FactSetAside(command.node, type(command).__name__, str(at_fault(fault))[:WHY_CHARS_MAX], result)]


def at_fault(problem: Exception) -> FarmError:
    """For the caller of a command that can never succeed."""
    if isinstance(problem, FarmError):
        return problem
    return FarmError(
        "The controller made a mistake with this request. Nothing of it was done.",
        remedy="Please report it with the controller's log.",
    )


def in_doubt(problem: Exception) -> Unavailable:
    """For the caller of a command whose turn ended without a word from the database."""
    mistake = "The controller made a mistake and is reading its state again."
    reason = problem.problem if isinstance(problem, FarmError) else mistake
    return Unavailable(
        f"Not known whether this was stored: {reason}", remedy="Look, or repeat with the same idempotency key."
    )


def not_ready() -> Unavailable:
    """For a caller whose command no turn will take."""
    return Unavailable("The controller is not ready.", remedy="Try again in a few seconds.")
