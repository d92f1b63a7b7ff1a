"""The farm as a whole: events, status, health."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from controller.gateway.agents.models import DeploymentView, ReplicaView
from controller.gateway.http.models import EXAMPLE_TIME, View
from controller.gateway.nodes.models import NodeView


class EventView(View):
    """One fact of the farm's story."""

    id: int = Field(examples=[812])
    at: datetime = Field(examples=[EXAMPLE_TIME])
    kind: str = Field(examples=["node.lost"])
    severity: str = Field(description="info, warning or error", examples=["error"])
    message: str = Field(examples=["node node-2 is lost after 8.1 s of silence: its work is issued again"])
    node: str | None = Field(default=None, examples=["node-2"])
    deployment: str | None = None
    replica: int | None = None
    task: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    actor: str = Field(default="", description="Who made it happen: operator, node/NAME, or farm as time passes.",
                       examples=["operator"])  # fmt: skip


class MarketView(View):
    """What the farm's feeds do."""

    state: str = Field(description="live, simulated, capture, starting, failed: why, or off", examples=["live"])
    rows: int = Field(description="Rows stored by feeds of nodes heard of, since each began.", examples=[120_345])
    nodes: list[str] = Field(description="Nodes that hold market data.", examples=[["node-1"]])
    products: list[str] = Field(default_factory=list, examples=[["BTC-USD"]])
    lag_ms: int = Field(default=0, examples=[12])


class StatusView(View):
    """The farm in one answer."""

    version: str = Field(examples=["0.1.0"])
    epoch: int = Field(description="Grows with every start of a leader.", examples=[4])
    at: datetime = Field(examples=[EXAMPLE_TIME])
    nodes: list[NodeView]
    deployments: list[DeploymentView]
    replicas: list[ReplicaView]
    tasks: dict[str, int] = Field(
        description="Live tasks by state now, ended ones by state since the farm began.",
        examples=[{"queued": 0, "leased": 0, "running": 1, "succeeded": 311}],
    )
    market: MarketView


class HealthView(View):
    """Whether this controller leads and can be used."""

    status: str = Field(description="ok, or standby while it does not lead", examples=["ok"])
    version: str = Field(examples=["0.1.0"])
    epoch: int | None = Field(default=None, examples=[4])


class TargetGroup(View):
    """Scrape targets in the form of Prometheus' http_sd."""

    targets: list[str] = Field(examples=[["10.0.0.12:9601"]])
    labels: dict[str, str] = Field(examples=[{"node": "node-2", "job": "agentfarm-node"}])
