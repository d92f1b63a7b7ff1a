"""Explanations."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from controller.gateway.agents.models import NodeReasons
from controller.gateway.http.models import View


class ReplicaVerdict(View):
    """What one replica could do now."""

    replica: int = Field(examples=[17])
    seat: int = Field(examples=[0])
    version: int = Field(examples=[3])
    node: str | None = Field(default=None, examples=["node-2"])
    state: str = Field(examples=["running"])
    verdict: str = Field(examples=["full: holds 1 of 1"])


class ExplainView(View):
    """Why something is as it is; further keys name the thing itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    agent: str = Field(examples=["market-brief"])
    because: str = Field(examples=["every replica is busy"])
    replicas: list[ReplicaVerdict] = Field(default_factory=list)
    nodes: list[NodeReasons] = Field(description="Every node, with every reason.")
