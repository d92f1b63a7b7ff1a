"""What an agent's spec decides: how much a replica needs, and how its tasks are tried and placed."""

from __future__ import annotations

from dataclasses import dataclass

from agentfarm.limits import (
    ATTEMPTS,
    BACKOFF_MAX_S,
    BACKOFF_S,
    CONCURRENCY,
    CPU_MILLICORES,
    HEALTHY_TIMEOUT_S,
    MEMORY_MIB,
    PRIORITY,
    RUN_TIMEOUT_S,
)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica needs."""

    cpu_millicores: int = CPU_MILLICORES
    memory_mib: int = MEMORY_MIB
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of an agent's spec on which the core decides. Made from AgentSpec once, at the edge."""

    resources: Resources = Resources()
    concurrency: int = CONCURRENCY
    priority: int = PRIORITY
    max_attempts: int = ATTEMPTS
    backoff_s: float = BACKOFF_S
    backoff_max_s: float = BACKOFF_MAX_S
    queue_timeout_s: float | None = None
    run_timeout_s: float | None = RUN_TIMEOUT_S
    exclusive: bool = False
    strategy: str = "spread"
    """Or "pack"."""
    constraints: tuple[tuple[str, str], ...] = ()
    """Node labels that must match."""
    capabilities: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    """Market products it reads: a preference for nodes that hold them."""
    healthy_deadline_s: float = HEALTHY_TIMEOUT_S
