"""What the journal can find wrong, beyond the farm's common errors (agentfarm/errors.py)."""

from __future__ import annotations

from agentfarm.errors import Conflict, FarmError


class LostLead(Conflict):
    """Another controller leads now: this one's epoch is old, and nothing it commits is stored."""

    code = "lost_lead"


class JournalCorrupt(FarmError):
    """The rows are not what the state says they are. Only our own mistake can cause it; nothing was stored."""

    code = "journal_corrupt"
