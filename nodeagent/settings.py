"""The daemon's settings: one frozen, validated value, read in main and passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from nodeagent.services.market.settings import MarketSettings

ENV_PREFIX: Final = "AGENTFARM"
LOG_FORMATS: Final = ("console", "json")


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """The OpenAI-compatible endpoint that agents' `llm()` uses; without a url it answers from a script."""

    url: str | None = None
    key_file: Path | None = None
    roles: dict[str, str] = field(default_factory=dict)
    """Role to model."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Keys of the YAML file; each can be set by AGENTFARM_KEY in the environment."""

    data_dir: Path
    link: str | None = None
    """host:port of the controller's node link; known from joining."""
    link_name: str | None = None
    """The name in the controller's certificate, where that is not the host in `link`."""
    labels: dict[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    """What this node says it can do, besides what the daemon finds out."""
    cpu_millicores: int | None = None
    """What agents may use; the machine's by default."""
    memory_mib: int | None = None
    """What agents may use; the machine's less the reserve by default."""
    reserve_memory_mib: int = 512
    gpus: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    """0: any free port, written to node.json; -1: no metrics."""
    market: MarketSettings | None = None
    llm: LlmSettings = field(default_factory=LlmSettings)
    agent_environment: dict[str, str] = field(default_factory=dict)
    """Variables that every agent on this node gets."""
    stop_replicas_on_exit: bool = False
    """Whether agents end with the daemon. Without it they work on, and the next daemon finds them."""
    log_format: str = "console"
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.log_format not in LOG_FORMATS:
            raise ValueError(f"log_format must be one of {', '.join(LOG_FORMATS)}")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")
        if self.reserve_memory_mib < 0 or self.gpus < 0:
            raise ValueError("reserve_memory_mib and gpus cannot be negative")
        if not -1 <= self.metrics_port < 65_536:
            raise ValueError("metrics_port must be a port, 0 for any, or -1 for none")
        if self.link is not None and not self.link.rpartition(":")[2].isdigit():
            raise ValueError("link must be host:port")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `asdict`, after JSON."""
        market, llm = data["market"], data["llm"]
        return cls(
            **{
                **data,
                "data_dir": Path(data["data_dir"]),
                "capabilities": tuple(data["capabilities"]),
                "market": None if market is None else MarketSettings.from_dict(market),
                "llm": LlmSettings(**{**llm, "key_file": Path(llm["key_file"]) if llm["key_file"] else None}),
            }
        )
