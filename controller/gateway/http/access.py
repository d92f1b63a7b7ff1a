"""Who calls, what a call needs, and whether this caller may do it.

Every call of the gateway is a `Call`, declared at its route. All of them together are the table that the border, the
routes and the express way check. This module knows no framework: plain submits are served before one is imported.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from agentfarm.errors import Forbidden
from agentfarm.limits import BUNDLE_MAX_BYTES
from controller.core.model import OPERATOR, Actor
from controller.gateway.http.limits import CONTROL_BODY_MAX_BYTES, ENVELOPE_MAX_BYTES
from controller.gateway.http.problems import Unauthorized


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
