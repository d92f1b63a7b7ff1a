"""Who calls, what a call needs, and whether this caller may do it.

Every call of the gateway is a `Call`, declared at its route. All of them together are the table that the border, the
routes and the express way check. This module knows no framework: plain submits are served before one is imported.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from ipaddress import ip_address
from typing import Final

from agentfarm.errors import Forbidden
from agentfarm.limits import BUNDLE_MAX_BYTES
from controller.core.model import OPERATOR, Actor
from controller.gateway.http.limits import CONTROL_BODY_MAX_BYTES, ENVELOPE_MAX_BYTES
from controller.gateway.http.problems import Misdirected, Unauthorized


class Permission(StrEnum):
    """What a call needs. A principal has some of them."""

    OPEN = "open"
    """Nothing: everybody has it, with a token or without."""
    TASKS_SUBMIT = "tasks.submit"
    """Submit tasks, cancel and retry them."""
    TASKS_READ = "tasks.read"
    AGENTS_DEPLOY = "agents.deploy"
    """Upload bundles; deploy, scale, roll back and remove agents."""
    NODES_MANAGE = "nodes.manage"
    """Invite, cordon, drain and forget nodes."""
    MARKET_MANAGE = "market.manage"
    """Choose which products are fed; have nodes check and repair their data."""
    FARM_READ = "farm.read"
    """See agents, nodes, products, logs and events."""
    METRICS_READ = "metrics.read"


class BodySize(Enum):
    """How large the body of a call may be."""

    CONTROL = "control"
    PAYLOAD = "payload"
    """A task's input with what stands around it; a setting says how much."""
    BUNDLE = "bundle"
    LINES = "lines"
    """Without a limit as a whole: the call reads lines, each with a limit of its own."""


BodyLimits = Mapping[BodySize, int | None]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. Its name is the actor of every command that a call makes."""

    name: Actor
    permissions: frozenset[Permission]


ANONYMOUS: Final = Principal(Actor(""), frozenset({Permission.OPEN}))
"""A caller without a token of ours."""
EVERYTHING: Final = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the table: a method and path, what it needs, and how much it takes."""

    method: str
    path: str
    permission: Permission
    body: BodySize = BodySize.CONTROL

    def admit(self, principal: Principal) -> None:
        """Raises Unauthorized for a caller without a token, Forbidden for one whose token does not allow it."""
        if self.permission not in principal.permissions:
            raise refusal(principal, self.permission)


class Principals:
    """Which bearer token is whose."""

    def __init__(self, by_token: Mapping[str, Principal]) -> None:
        self._by_header = [(f"Bearer {token}".encode(), principal) for token, principal in by_token.items()]

    def known_by(self, authorization: bytes) -> Principal | None:
        """The principal of an Authorization header."""
        for header, principal in self._by_header:
            if hmac.compare_digest(authorization, header):
                return principal
        return None


def operators(token: str) -> Principals:
    """The one principal of today: the operator's token may do everything."""
    return Principals({token: Principal(OPERATOR, EVERYTHING)})


def body_limits(payload_max_bytes: int) -> BodyLimits:
    """Bytes that a body of each size may have; None: as many as come."""
    return {
        BodySize.CONTROL: CONTROL_BODY_MAX_BYTES,
        BodySize.PAYLOAD: payload_max_bytes + ENVELOPE_MAX_BYTES,
        BodySize.BUNDLE: BUNDLE_MAX_BYTES,
        BodySize.LINES: None,
    }


def refusal(principal: Principal, permission: Permission) -> Unauthorized | Forbidden:
    """Why this principal may not do what needs that permission."""
    if principal is ANONYMOUS:
        return unauthorized()
    return Forbidden(
        f"This call needs the permission {permission}, which {principal.name} does not have.",
        remedy="Use the token of an account that has it.",
        permission=permission.value,
    )


def unauthorized() -> Unauthorized:
    """The refusal of callers without a token of ours."""
    return Unauthorized(
        "This call needs the operator's token.",
        remedy="Send it as 'Authorization: Bearer …'; it is in operator.token in the controller's data folder.",
    )


# ------------------------------------------------------------------ the names that are ours

ANY: Final = "*"
_ACCEPTED_MAX: Final = 64
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - to be compared with, not to listen on


class Hosts:
    """For which names the gateway answers. Without this, a page in a browser could speak to it under a name of its own.

    The Host header shows a page that points its name at this machine (DNS rebinding), the Origin header one that calls
    us across origins (RFC 6454). Programs send no Origin.

    names: host names and addresses without ports; loopback is always one. `*`: every name.

    Where the gateway listens on every address of the machine (`0.0.0.0`, `::`), every address is one: no page has an
    address of ours for its name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._takes_addresses = bool(self._names & _WILDCARDS)
        self._accepted: set[bytes] = set()
        """Headers that were looked at before."""

    def check(self, host: bytes) -> None:
        """A Host header. Raises Misdirected for a name that is not ours."""
        if host in self._accepted:
            return
        name = _name_of(host.decode("latin-1"))
        if not self._is_ours(name):
            raise Misdirected(
                f"{name[:200]!r} is not a name of this gateway.",
                remedy="Use its address, or add the name to allowed_hosts in the controller's settings.",
            )
        if len(self._accepted) < _ACCEPTED_MAX:
            self._accepted.add(host)

    def _is_ours(self, name: str) -> bool:
        if name in self._names or ANY in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._takes_addresses


def check_origin(origin: bytes, host: bytes) -> None:
    """An Origin header. Raises Forbidden for another origin than that which the Host header names."""
    if origin.partition(b"://")[2].lower() != host.lower():
        raise Forbidden(
            f"Pages of {origin.decode('latin-1')[:200]!r} may not call this gateway.",
            remedy="Call it from a program, or serve the page under the gateway's own name.",
        )


def _name_of(host: str) -> str:
    """Without port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
