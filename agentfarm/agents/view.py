"""A node's view of an agent spec: the canonical JSON read with the standard library alone.

The daemon must stay small, so it does not load the validator: the controller has validated what it sends. Unknown keys
are ignored and missing keys have their defaults, so that nodes and controllers of different releases understand each
other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from agentfarm import limits
from agentfarm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SpecView:
    """What a node needs to know of an agent. Durations in seconds, None is no limit."""

    name: str
    entry: str | None = None
    concurrency: int = limits.CONCURRENCY
    cpu_millicores: int = limits.CPU_MILLICORES
    memory_mib: int = limits.MEMORY_MIB
    gpus: int = 0
    run_timeout_s: float | None = limits.RUN_TIMEOUT_S
    healthy_timeout_s: float = limits.HEALTHY_TIMEOUT_S
    shutdown_timeout_s: float = limits.SHUTDOWN_TIMEOUT_S
    exclusive: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    products: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `AgentSpec.canonical_json()`. Raises InvalidRequest when it is something else."""
        try:
            data = json.loads(text)
            return cls._read(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(f"This is not an agent spec: {error!r}.") from error

    @classmethod
    def _read(cls, data: dict[str, Any]) -> Self:
        resources: dict[str, Any] = data.get("resources", {})
        timeouts: dict[str, Any] = data.get("timeouts", {})
        placement: dict[str, Any] = data.get("placement", {})
        return cls(
            name=str(data["name"]),
            entry=data.get("entry"),
            concurrency=int(data.get("concurrency", limits.CONCURRENCY)),
            cpu_millicores=int(resources.get("cpu_millicores", limits.CPU_MILLICORES)),
            memory_mib=int(resources.get("memory_mib", limits.MEMORY_MIB)),
            gpus=int(resources.get("gpus", 0)),
            run_timeout_s=timeouts.get("run_s", limits.RUN_TIMEOUT_S),
            healthy_timeout_s=float(timeouts.get("healthy_s", limits.HEALTHY_TIMEOUT_S)),
            shutdown_timeout_s=float(timeouts.get("shutdown_s", limits.SHUTDOWN_TIMEOUT_S)),
            exclusive=bool(data.get("exclusive", False)),
            environment={str(name): str(value) for name, value in data.get("environment", {}).items()},
            capabilities=tuple(placement.get("capabilities", ())),
            products=tuple(placement.get("products", ())),
        )
