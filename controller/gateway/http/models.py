"""What all bodies and views share."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

EXAMPLE_TIME: Final = "2026-03-01T12:00:00Z"


class Body(BaseModel):
    """What a caller sends. A key we do not know is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", strict=False)


class View(BaseModel):
    """What the gateway says."""

    model_config = ConfigDict(frozen=True)
