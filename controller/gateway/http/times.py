"""Moments as callers read them."""

from __future__ import annotations

from datetime import UTC, datetime


def when(wall: float | None) -> datetime | None:
    """Unix seconds as an aware UTC time; none stays none."""
    return None if wall is None or wall <= 0 else datetime.fromtimestamp(wall, UTC)
