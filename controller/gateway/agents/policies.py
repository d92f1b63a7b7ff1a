"""From an agent's spec to the part of it on which the core decides."""

from __future__ import annotations

from agentfarm.agents.spec import AgentSpec
from controller.core.model import Policy, Resources


def policy_of(spec: AgentSpec) -> Policy:
    """The core's view of a spec."""
    return Policy(
        resources=Resources(spec.resources.cpu_millicores, spec.resources.memory_mib, spec.resources.gpus),
        concurrency=spec.concurrency,
        priority=spec.priority,
        max_attempts=spec.retries.max_attempts,
        backoff_s=spec.retries.backoff_s,
        backoff_max_s=spec.retries.backoff_max_s,
        queue_timeout_s=spec.timeouts.queue_s,
        run_timeout_s=spec.timeouts.run_s,
        exclusive=spec.exclusive,
        strategy=spec.placement.strategy,
        constraints=tuple(sorted(spec.placement.labels.items())),
        capabilities=spec.placement.capabilities,
        products=spec.placement.products,
        healthy_deadline_s=spec.timeouts.healthy_s,
    )
