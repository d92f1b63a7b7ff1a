"""How a machine becomes a node: an invitation, and a certificate for a request that proves it."""

from __future__ import annotations

from typing import Protocol

from controller.core.model import NodeName
from controller.gateway.models.nodes import InviteAnswer, JoinAnswer, JoinBody


class Joining(Protocol):
    """Invitations and certificates."""

    async def invite(self, name: str) -> InviteAnswer:
        """A new one-use token for that name; an earlier one for it is void."""

    async def join(self, body: JoinBody) -> JoinAnswer:
        """The certificate. Raises Forbidden when the invitation is unknown, used, expired, or the proof is wrong."""

    async def forget(self, node: NodeName) -> None:
        """Void what invitation the name still has."""
