"""What a farm looks like at one moment, read from the gateway, and the few questions `farmctl dev` asks of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farmctl.api.client import FarmClient

STATUS_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Glimpse:
    """`GET /v1/status`, as it was answered."""

    status: Mapping[str, Any]

    @property
    def nodes(self) -> list[Mapping[str, Any]]:
        return list(self.status.get("nodes", ()))

    @property
    def deployments(self) -> list[Mapping[str, Any]]:
        """Those that are to run."""
        return [one for one in self.status.get("deployments", ()) if not one.get("is_removed")]

    @property
    def replicas(self) -> list[Mapping[str, Any]]:
        return list(self.status.get("replicas", ()))

    @property
    def tasks(self) -> Mapping[str, int]:
        return dict(self.status.get("tasks", {}))

    @property
    def rows(self) -> int:
        """Rows stored by the feeds since each began."""
        return int(self._market.get("rows", 0))

    @property
    def market_state(self) -> str:
        return str(self._market.get("state", ""))

    @property
    def is_recording_over(self) -> bool:
        """Whether all of a recording was played."""
        return self.market_state.endswith("the recording is over")

    @property
    def market_failure(self) -> str:
        """Why there is no market data; empty while there may be some."""
        state = self.market_state
        return state.removeprefix("failed:").strip() if state.startswith("failed") else ""

    @property
    def ready_nodes(self) -> set[str]:
        return {str(node["name"]) for node in self.nodes if node["state"] == "ready"}

    @property
    def running_replicas(self) -> int:
        return sum(replica["state"] == "running" for replica in self.replicas)

    def unfinished(self) -> list[str]:
        """Deployments that do not yet run as they should."""
        return [
            str(one["name"])
            for one in self.deployments
            if int(one["replicas_running"]) < int(one["replicas_wanted"])
            or (one.get("rollout") or {}).get("state") == "progressing"
        ]

    @property
    def _market(self) -> Mapping[str, Any]:
        return dict(self.status.get("market") or {})


def glimpse(farm: FarmClient) -> Glimpse:
    """Ask the gateway now. Raises Unavailable."""
    return Glimpse(farm.get("/v1/status", timeout_s=STATUS_TIMEOUT_S))
