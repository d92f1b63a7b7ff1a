"""When a replica that died is started again, and when it is left alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentfarm.backoff import backoff_s

GROWTH: Final = 4.0
"""Steeper than elsewhere: five crashes within a minute are a crash loop, and must be able to happen within one."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Growing, capped, jittered waits; `crashes_max` within `window_s` is a crash loop."""

    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    crashes_max: int = 5
    window_s: float = 60.0


DEFAULT_POLICY: Final = RestartPolicy()


@dataclass(frozen=True, slots=True)
class Crashes:
    """When a replica crashed lately, on the monotonic clock."""

    at: tuple[float, ...] = ()

    def add(self, now: float, policy: RestartPolicy = DEFAULT_POLICY) -> Crashes:
        """One more; those outside the window are forgotten."""
        return Crashes((*(moment for moment in self.at if now - moment < policy.window_s), now))

    def is_loop(self, policy: RestartPolicy = DEFAULT_POLICY) -> bool:
        """Whether starting it once more would only make it crash once more."""
        return len(self.at) >= policy.crashes_max

    def wait_s(self, chance: float, policy: RestartPolicy = DEFAULT_POLICY) -> float:
        """How long to wait before the next start. chance: uniform in [0, 1)."""
        return backoff_s(len(self.at), policy.first_wait_s, policy.longest_wait_s, chance, GROWTH)
