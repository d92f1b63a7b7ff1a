"""Problem details (RFC 9457) as a model, for the OpenAPI description."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from controller.gateway.http.models import View


class ProblemView(View):
    """Why not, and what to do about it. Further keys carry data of the case."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(examples=["urn:agentfarm:problem:not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no agent 'market-breif'."])
    remedy: str = Field(examples=["Did you mean 'market-brief'?"])
    code: str = Field(examples=["not_found"])
