"""Nodes as operators see them, and how a machine becomes one."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from agentfarm.limits import NAME_CHARS_MAX, NAME_PATTERN
from controller.core.lives import NodeState
from controller.gateway.agents.models import ReplicaView
from controller.gateway.http.models import EXAMPLE_TIME, Body, View
from controller.gateway.market.models import ProductMove


class InviteBody(Body):
    """The name of the machine that may join."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "node-4"}]})

    name: str = Field(
        pattern=NAME_PATTERN, max_length=NAME_CHARS_MAX, description="Lower-case letters, digits, single hyphens."
    )


class InviteAnswer(View):
    """A one-use token for `agentfarm-node join`. It is a secret until it is used."""

    name: str = Field(examples=["node-4"])
    token: str = Field(examples=["eyJ2IjoxLC…"])
    expires_at: datetime = Field(examples=[EXAMPLE_TIME])


class JoinBody(Body):
    """A node's certificate request, proved with the invitation's secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "node-4", "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----\n…", "proof": "3q2-7w…"}]
        }
    )

    name: str = Field(pattern=NAME_PATTERN, max_length=NAME_CHARS_MAX)
    csr_pem: str = Field(max_length=16 * 1024)
    proof: str = Field(max_length=256, description="HMAC-SHA256(secret, csr_pem).")


class JoinAnswer(View):
    """The node's certificate, proved with the same secret."""

    certificate_pem: str
    ca_pem: str
    proof: str = Field(description="HMAC-SHA256(secret, certificate_pem + ca_pem).")


class ReasonBody(Body):
    """Why. All who look at the node see it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "new disk"}]})

    reason: str = Field(default="", max_length=500)


class DrainBody(ReasonBody):
    """How long running work may take to end by itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deadline_s": 300, "reason": "new disk"}]})

    deadline_s: float = Field(default=300.0, gt=0, le=7 * 24 * 3600.0)


class DrainView(View):
    """A drain in progress, or done: then nothing of the farm runs on the node."""

    started_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    seconds_left: float = Field(description="Until running work is interrupted.", examples=[212.5])
    reason: str = ""
    is_forced: bool = Field(default=False, description="The deadline was hit and work was stopped.")
    is_complete: bool = Field(description="The daemon confirmed: no replica process, no assigned product.")
    blocked_by: list[str] = Field(default_factory=list, description="What still holds it, in sentences.")


class MeasuredView(View):
    """What the daemon measured at its last beat."""

    memory_available_mib: int = 0
    cpu_used_millicores: int = 0
    disk_free_mib: int = 0
    market_rows: int = 0
    market_lag_ms: int = 0
    market_state: str = ""


class NodeView(View):
    """One machine."""

    name: str = Field(examples=["node-2"])
    state: NodeState = Field(examples=["ready"])
    is_cordoned: bool = False
    cordon_reason: str = ""
    drain: DrainView | None = None
    heard_s_ago: float | None = Field(default=None, description="Since its last sign of life.", examples=[0.4])
    cpu_millicores: int = 0
    memory_mib: int = 0
    gpus: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    capabilities: list[str] = Field(default_factory=list)
    products: list[str] = Field(default_factory=list, description="Market products it feeds.")
    assigned: list[str] = Field(default_factory=list, description="Those of them that the controller assigned.")
    takes_products: bool = Field(default=False, description="It has a feed that takes products from the controller.")
    market_source: str = Field(default="", description="Where its feed gets them.", examples=["coinbase-advanced"])
    metrics_address: str = Field(default="", description="Of its daemon's metrics.", examples=["node-2:9464"])
    daemon_version: str = ""
    measured: MeasuredView | None = None
    replica_count: int = 0
    running: int = Field(default=0, description="Attempts leased to it now.")
    replicas: list[ReplicaView] | None = None


class NodeList(View):
    nodes: list[NodeView]


class DrainMove(View):
    """What a drain would do with one replica."""

    replica: int = Field(examples=[17])
    agent: str = Field(examples=["market-brief"])
    seat: int = Field(examples=[0])
    from_: str = Field(alias="from", examples=["node-2"])
    to: str | None = Field(default=None, description="None: no node can take it.", examples=["node-3"])
    attempts: int = Field(description="It holds this many now.", examples=[1])
    action: str = Field(description="move or stop", examples=["move"])


class DrainPlanView(View):
    """What a drain would move where. Nothing was changed."""

    nodes: list[str] = Field(examples=[["node-2"]])
    replicas: list[DrainMove]
    products: list[ProductMove] = Field(default_factory=list, description="Market products assigned there.")
    fits: bool = Field(description="Whether every replica and product finds another node.", examples=[True])
