"""The example agents: deployed through the gateway, as every agent is. What a person changed stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.agents.bundle import Bundle, pack
from agentfarm.agents.sources import AgentSource, find_agents
from farmctl.api.client import FarmClient
from farmctl.dev.folder import read_json, write_json

ROLLED_OUT_WITHIN_S: Final = 120.0
"""The first replica of each agent on a node imports LangGraph; on a slow machine that takes its time."""
MARKET_CAPABILITY: Final = "questdb"


@dataclass(frozen=True, slots=True)
class Example:
    """An example agent that is deployed."""

    name: str
    needs_market: bool


class Examples:
    """The agents of a folder. `memory` is the file that knows what was deployed by earlier starts."""

    def __init__(self, folder: Path, memory: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._memory = memory
        self._say = say

    def deploy(self, farm: FarmClient, *, has_market: bool, is_once: bool) -> list[Example]:
        """Upload and deploy what should be; the rollouts go on. Returns those that are deployed. Raises FarmError.

        has_market: whether agents that need market data have a place to run; without it they are left out.
        is_once: deploy also what a person had removed.
        """
        if not self._folder.is_dir():
            self._say(f"there are no example agents in {self._folder}: deploy your own with `farmctl deploy PATH`")
            return []
        remembered = read_json(self._memory) or {}
        views = {view["name"]: view for view in farm.get("/v1/deployments")["deployments"] if not view["is_removed"]}
        deployed = []
        for agent in find_agents(self._folder):
            example = Example(agent.name, MARKET_CAPABILITY in agent.spec.placement.capabilities)
            if example.needs_market and not has_market:
                continue
            bundle = pack(agent)
            current = _digest(farm, agent.name) if agent.name in views else None
            if should_deploy(bundle.digest, current, remembered.get(agent.name), is_once=is_once):
                self._say(f"deploying {agent.name}")
                _deploy(farm, agent, bundle)
                remembered[agent.name] = bundle.digest
            elif current is None:
                continue
            deployed.append(example)
        write_json(self._memory, remembered)
        return deployed


def should_deploy(new: str, current: str | None, ours: str | None, *, is_once: bool) -> bool:
    """Whether to deploy an example. new, current, ours: digests of the file, of what runs, of what we deployed last.

    What a person deployed under the same name stays. What a person removed stays away, except for a check of
    everything.
    """
    if current is None:
        return ours is None or is_once
    return current == ours != new


def _digest(farm: FarmClient, name: str) -> str:
    view: dict[str, Any] = farm.get(f"/v1/deployments/{name}")
    return str(next(one["digest"] for one in view["versions"] if one["version"] == view["version"]))


def _deploy(farm: FarmClient, agent: AgentSource, bundle: Bundle) -> None:
    if not farm.has(f"/v1/bundles/{bundle.digest}"):
        farm.put(f"/v1/bundles/{bundle.digest}", iter((bundle.data,)), len(bundle.data))
    farm.post("/v1/deployments", {"spec": json.loads(agent.spec.canonical_json()), "digest": bundle.digest})
