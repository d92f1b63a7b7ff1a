"""What the journal can find wrong, beyond the farm's common errors (agentfarm/errors.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentfarm.errors import Conflict, FarmError, InvalidRequest

LOST_LEAD_STATE: Final = "FA001"
"""The SQLSTATE of the lead's guard in the database: see migrations/versions/0001_pre_first_tables.py."""


class LostLead(Conflict):
    """Another controller leads now: this one's epoch is old, and nothing it commits is stored."""

    code = "lost_lead"


DATA_STATES: Final = ("22", "54", "23502", "23514")
"""How SQLSTATEs begin that blame a value: no column holds it, a limit (an index's key), NOT NULL, CHECK. That a key is
there twice, or is missing, is a mistake of ours instead."""


class DataRefused(InvalidRequest):
    """The database cannot hold a value of the turn. Nothing was stored; without that value all else can be."""

    code = "data_refused"


class JournalCorrupt(FarmError):
    """The rows are not what the state says they are. Only our own mistake can cause it; nothing was stored."""

    code = "journal_corrupt"


@contextmanager
def fitting() -> Iterator[None]:
    """Rows that are read fit together: what one of them names is there. Raises JournalCorrupt."""
    try:
        yield
    except KeyError as missing:
        raise JournalCorrupt(
            f"A stored row names {missing}, which is not stored.", remedy="Please report it; restore a backup."
        ) from missing
