"""Names for shell completion, from the farm. Silent and quick: a shell must never hang or print because of us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agentfarm.errors import FarmError
from farmctl.api.client import FarmClient
from farmctl.api.connection import find_connection

DEADLINE_S: Final = 0.8


def agents(incomplete: str) -> list[str]:
    """Deployments."""
    return _names("/v1/deployments", lambda answer: [item["name"] for item in answer["deployments"]], incomplete)


def nodes(incomplete: str) -> list[str]:
    """Nodes."""
    return _names("/v1/nodes", lambda answer: [item["name"] for item in answer["nodes"]], incomplete)


def replicas(incomplete: str) -> list[str]:
    """Replicas as deployment/seat, and deployments."""
    names = _names("/v1/replicas", lambda answer: [item["name"] for item in answer["replicas"]], incomplete)
    return names + agents(incomplete)


def tasks(incomplete: str) -> list[str]:
    """The newest tasks."""
    return _names("/v1/tasks?limit=50", lambda answer: [str(item["id"]) for item in answer["tasks"]], incomplete)


def products(incomplete: str) -> list[str]:
    """Market products that are assigned across the farm."""

    def pick(answer: Any) -> list[str]:
        return [item["name"] for item in answer["products"] if item["copies"] is not None]

    return _names("/v1/market/products", pick, incomplete)


def things(incomplete: str) -> list[str]:
    """All that can be explained."""
    return ["task", "replica", "deployment", "product", *replicas(incomplete), *tasks(incomplete)]


def _names(path: str, pick: Callable[[Any], list[str]], incomplete: str) -> list[str]:
    try:
        farm = FarmClient(find_connection(None, None), sleep=lambda seconds: None)
        names = pick(farm.get(path, timeout_s=DEADLINE_S))
    except (FarmError, OSError, KeyError, TypeError, ValueError):
        return []
    return [name for name in names if name.startswith(incomplete)]
