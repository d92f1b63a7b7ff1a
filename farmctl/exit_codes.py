"""Exit codes: the same everywhere, so that scripts can tell what happened."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from agentfarm.errors import CannotPlace, Conflict, FarmError


class Exit(IntEnum):
    """What happened, as a number."""

    DONE = 0
    ERROR = 1
    CANNOT_PLACE = 2
    FORCED = 3
    PARTLY = 4
    PRECONDITION = 5
    DETACHED = 130


MEANINGS: Final = {
    Exit.DONE: "done",
    Exit.ERROR: "error",
    Exit.CANNOT_PLACE: "cannot be placed",
    Exit.FORCED: "deadline hit, work forced off",
    Exit.PARTLY: "partly done",
    Exit.PRECONDITION: "precondition failed",
    Exit.DETACHED: "detached",
}

HELP: Final = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."


def exit_of(error: FarmError) -> Exit:
    """The exit code of an error."""
    if isinstance(error, CannotPlace):
        return Exit.CANNOT_PLACE
    return Exit.PRECONDITION if isinstance(error, Conflict) else Exit.ERROR


def joined(codes: list[Exit]) -> Exit:
    """One exit code for several results: theirs if all are equal, else partly done."""
    if len(set(codes)) == 1:
        return codes[0]
    return Exit.PARTLY if Exit.DONE in codes or Exit.FORCED in codes else Exit.ERROR
