"""Deploying the example agents, through the gateway as every deploy goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentfarm.bundle import pack
from agentfarm.sources import AgentSource, find_agents
from farmctl.client import FarmClient

ROLLED_OUT_WITHIN_S: Final = 120.0
"""The first replica of each agent on a node imports LangGraph; on a slow machine that takes its time."""


MARKET_CAPABILITY: Final = "questdb"


def deploy_examples(farm: FarmClient, folder: Path, say: Callable[[str], None], *, has_market: bool) -> list[str]:
    """Upload and deploy every agent of the folder; what is deployed already with this content stays as it is.

    has_market: whether agents that need market data have a place to run; without it they are left out.
    Returns the names of those deployed; the rollouts go on. Raises FarmError.
    """
    if not folder.is_dir():
        say(f"there are no example agents in {folder}: deploy some of your own with `farmctl deploy PATH`")
        return []
    agents = [agent for agent in find_agents(folder) if has_market or not _needs_market(agent)]
    for agent in agents:
        is_changed = _deploy(farm, agent)
        if is_changed:
            say(f"deploying {agent.name}")
    return [agent.name for agent in agents]


def _deploy(farm: FarmClient, agent: AgentSource) -> bool:
    bundle = pack(agent)
    if not farm.has(f"/v1/bundles/{bundle.digest}"):
        farm.put(f"/v1/bundles/{bundle.digest}", iter((bundle.data,)), len(bundle.data))
    spec = json.loads(agent.spec.canonical_json())
    return bool(farm.post("/v1/deployments", {"spec": spec, "digest": bundle.digest})["is_changed"])


def _needs_market(agent: AgentSource) -> bool:
    return MARKET_CAPABILITY in agent.spec.placement.capabilities
