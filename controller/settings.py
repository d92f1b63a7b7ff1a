"""The controller's settings: one frozen, validated value, made in main and passed down.

Read from YAML (`agentfarm-controller --config FILE`) and from AGENTFARM_... variables. Rules between fields are checked
here, at start, not discovered at night.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agentfarm.limits import BEAT_INTERVAL_S, GATEWAY_PORT, LINK_PORT, PAYLOAD_MAX_BYTES, STOP_EXCLUSIVE_AFTER_S
from controller.core.model import Limits
from controller.gateway.http.limits import ConnectionLimits


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """A controller's settings. Each has a default that works on one machine.

    data_dir: CA, operator token, embedded PostgreSQL, chosen ports.
    database_url: your own PostgreSQL (postgresql://…); none: the embedded one.
    gateway_*, link_*: where to listen; port 0 takes any free port, written to `data_dir/controller.json`.
    public_host: the name or address under which nodes and operators reach this machine; in certificates and tokens.
    limits: the numbers of the decision core, by their names in `controller.core.model.Limits`.
    allowed_hosts: names of the gateway, besides public_host, the machine's name and loopback; `*`: any.
    http: what strangers may take of the HTTP server.
    """

    data_dir: Path = Path("/var/lib/agentfarm/controller")
    database_url: str | None = None
    gateway_host: str = "127.0.0.1"
    gateway_port: int = GATEWAY_PORT
    link_host: str = "127.0.0.1"
    link_port: int = LINK_PORT
    public_host: str = "127.0.0.1"
    payload_max_bytes: int = PAYLOAD_MAX_BYTES
    beat_interval_s: float = BEAT_INTERVAL_S
    stop_exclusive_after_s: float = STOP_EXCLUSIVE_AFTER_S
    retention_days: int = 14
    log_format: str = "console"
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
    allowed_hosts: tuple[str, ...] = ()
    http: ConnectionLimits = field(default_factory=ConnectionLimits)

    def __post_init__(self) -> None:
        limits = self.limits
        if self.beat_interval_s * 3 > limits.unreachable_after_s:
            raise ValueError("unreachable_after_s must outlast three beats (beat_interval_s)")
        if not limits.unreachable_after_s <= self.stop_exclusive_after_s < limits.reissue_after_s:
            raise ValueError("stop_exclusive_after_s must lie between unreachable_after_s and reissue_after_s")
        for name in ("gateway_port", "link_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ValueError(f"{name} must be from 0 to 65535")
        if self.log_format not in ("console", "json"):
            raise ValueError("log_format must be console or json")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError("log_level must be debug, info, warning or error")
        if self.retention_days < 1:
            raise ValueError("retention_days must be at least 1")
