"""What all bodies and views share."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_TIME: Final = "2026-03-01T12:00:00Z"


class Body(BaseModel):
    """What a caller sends. A key we do not know is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", strict=False)


class View(BaseModel):
    """What the gateway says."""

    model_config = ConfigDict(frozen=True)


class ProblemView(View):
    """Why not, and what to do about it. Further keys carry data of the case."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(examples=["urn:agentfarm:problem:not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no agent 'market-breif'."])
    remedy: str = Field(examples=["Did you mean 'market-brief'?"])
    code: str = Field(examples=["not_found"])
