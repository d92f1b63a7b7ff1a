"""The gateway's settings. The controller makes them of its own and passes them down."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from agentfarm.limits import GATEWAY_PORT, LINK_PORT, PAYLOAD_MAX_BYTES
from controller.gateway.http.limits import ConnectionLimits


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where to listen, which token is the operator's, and what stands in invitations.

    operator_token: the bearer token of operators; at least 16 characters.
    gateway_address / link_address: `host:port` as a node reaches them; a port of 0 is replaced by the one bound.
    """

    operator_token: str = field(repr=False)
    gateway_host: str = "127.0.0.1"
    gateway_port: int = GATEWAY_PORT
    link_address: str = f"127.0.0.1:{LINK_PORT}"
    public_host: str = ""
    """The name by which nodes reach the gateway; empty: gateway_host."""
    payload_max_bytes: int = PAYLOAD_MAX_BYTES
    http: ConnectionLimits = field(default_factory=ConnectionLimits)
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which callers reach the gateway."""

    def __post_init__(self) -> None:
        if len(self.operator_token) < 16:
            raise ValueError("operator_token must have at least 16 characters")
        if self.payload_max_bytes < 1024:
            raise ValueError("payload_max_bytes must be at least 1024")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name under which the gateway answers."""
        machine = socket.gethostname()
        named = (self.gateway_host, self.public_host or self.gateway_host, machine, machine.partition(".")[0])
        return (*named, *self.allowed_hosts)
