"""Deployments, their versions and replicas, and what a change would do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from agentfarm.limits import DIGEST_PATTERN, REPLICAS_MAX
from controller.core.lives import ReplicaState
from controller.gateway.http.models import EXAMPLE_TIME, Body, View


class DeployBody(Body):
    """An agent's spec and the bundle, already uploaded, that it belongs to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"spec": {"name": "market-brief", "replicas": 2}, "digest": "sha256:" + "ab" * 32}]
        }
    )

    spec: dict[str, Any] = Field(description="The agent's spec, as in agent.yaml.")
    digest: str = Field(pattern=DIGEST_PATTERN)
    replicas: int | None = Field(default=None, ge=0, le=REPLICAS_MAX, description="Default: as it is, else the spec's.")
    if_generation: int | None = Field(default=None, ge=0, description="Refuse unless it is this; 0: new.")


class ScaleBody(Body):
    """How many replicas there should be."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"replicas": 4}]})

    replicas: int = Field(ge=0, le=REPLICAS_MAX)
    if_generation: int | None = Field(default=None, ge=0)


class RollbackBody(Body):
    """Which version to go back to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to_version": 2}]})

    to_version: int | None = Field(default=None, ge=1, description="Default: the newest earlier one that ran well.")
    if_generation: int | None = Field(default=None, ge=0)


class DeployAnswerView(View):
    """What is being rolled out. `is_changed` false: it was so already."""

    name: str = Field(examples=["market-brief"])
    version: int = Field(examples=[3])
    generation: int = Field(examples=[7])
    is_changed: bool = Field(examples=[True])


class ScaleAnswerView(View):
    """The deployment after a scale."""

    name: str = Field(examples=["market-brief"])
    replicas: int = Field(examples=[4])
    generation: int = Field(examples=[8])


class ReplicaView(View):
    """One occupant of a deployment's seat."""

    id: int = Field(examples=[17])
    name: str = Field(description="deployment/seat", examples=["market-brief/0"])
    deployment: str = Field(examples=["market-brief"])
    seat: int = Field(examples=[0])
    version: int = Field(examples=[3])
    state: ReplicaState = Field(examples=["running"])
    node: str | None = Field(default=None, examples=["node-2"])
    is_retiring: bool = False
    reason: str = ""
    detail: str = ""
    restarts: int = 0
    pid: int = 0
    private_mib: int = 0
    ready_ms: int = 0
    since: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    running: int = Field(default=0, description="Attempts it holds now.")
    served: int = Field(default=0, description="Attempts it has ended.")


class RolloutView(View):
    """The change in progress, or the last one."""

    state: str = Field(description="progressing, complete or reverted", examples=["progressing"])
    from_version: int | None = Field(default=None, examples=[2])
    to_version: int = Field(examples=[3])
    started_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    reason: str = ""
    detail: str = Field(default="", description="For a reverted rollout, the failed replica's own words.")


class VersionView(View):
    """One immutable version of an agent."""

    version: int = Field(examples=[3])
    digest: str = Field(examples=["sha256:" + "ab" * 32])
    created_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    is_current: bool = True
    spec: dict[str, Any] | None = None


class DeploymentView(View):
    """What should run of one agent, and what does."""

    name: str = Field(examples=["market-brief"])
    version: int = Field(examples=[3])
    generation: int = Field(examples=[7])
    replicas_wanted: int = Field(examples=[2])
    replicas_running: int = Field(examples=[2])
    queued: int = Field(examples=[0])
    leased: int = Field(examples=[1])
    service_s: float | None = Field(
        default=None, description="What one attempt takes: a maximum that decays.", examples=[0.12]
    )
    is_removed: bool = False
    is_halted: bool = False
    rollout: RolloutView | None = None
    replicas: list[ReplicaView] | None = None
    versions: list[VersionView] | None = None


class DeploymentList(View):
    deployments: list[DeploymentView]


class ReplicaList(View):
    replicas: list[ReplicaView]


class NodeReasons(View):
    """Whether one more such replica would fit on a node, or every reason why not."""

    node: str = Field(examples=["node-2"])
    fits: bool = Field(examples=[False])
    score: float | None = Field(default=None, description="Lower is better.", examples=[0.42])
    reasons: list[str] = Field(default_factory=list, examples=[["cordoned: new disk"]])


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


class PlacedSeat(View):
    seat: int = Field(examples=[1])
    node: str = Field(examples=["node-2"])


class SpecChange(View):
    key: str = Field(examples=["resources.memory_mib"])
    before: Any = Field(default=None, examples=[128])
    after: Any = Field(default=None, examples=[256])


class PlanView(View):
    """What would change. Nothing was changed."""

    agent: str = Field(examples=["market-brief"])
    before: int = Field(description="Replicas wanted now.", examples=[1])
    after: int = Field(description="Replicas wanted then.", examples=[2])
    placed: list[PlacedSeat] = Field(description="New seats, and where each would go.")
    refused: list[int] = Field(description="New seats that no node can take.", examples=[[]])
    removed: list[int] = Field(description="Seats that would go.", examples=[[]])
    replaced: list[int] = Field(default_factory=list, description="Seats that would get the new version.")
    is_changed: bool = Field(default=True, description="False: it is so already.")
    version_before: int | None = None
    version_after: int | None = None
    code_changed: bool = False
    spec_changes: list[SpecChange] = Field(default_factory=list)
    nodes: list[NodeReasons] = Field(description="Every node, with every reason.")
