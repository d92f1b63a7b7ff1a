"""How a machine becomes a node: an invitation, and a certificate for a request that proves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from agentfarm import identity
from agentfarm.errors import Unavailable
from controller.authority import Authority
from controller.core.model import NodeName
from controller.gateway.http.answers import when

if TYPE_CHECKING:
    from controller.gateway.nodes.models import InviteAnswer, JoinAnswer, JoinBody
    from controller.journal.queries.store import Store


class Joining(Protocol):
    """Invitations and certificates."""

    async def invite(self, name: str) -> InviteAnswer:
        """A new one-use token for that name; an earlier one for it is void."""

    async def join(self, body: JoinBody) -> JoinAnswer:
        """The certificate. Raises Forbidden when the invitation is unknown, used, expired, or the proof is wrong."""

    async def forget(self, node: NodeName) -> None:
        """Void what invitation the name still has."""


class AuthorityJoining:
    """Joining by the farm's own certificate authority, with invitations kept in PostgreSQL.

    addresses: the gateway's URL and the link's `host:port` as nodes reach them; asked when an invitation is made,
    because ports may be known only once everything listens. store: as JournalHistory takes it.
    """

    def __init__(
        self, authority: Authority, store: Callable[[], Store], addresses: Callable[[], tuple[str, str]]
    ) -> None:
        self._authority, self._store, self._addresses = authority, store, addresses

    async def invite(self, name: str) -> InviteAnswer:
        """A new token."""
        from controller.gateway.nodes.models import InviteAnswer  # noqa: PLC0415 - pydantic, see submission.py

        secret, expires = self._authority.invitation()
        gateway, link = self._addresses()
        await asyncio.to_thread(lambda: self._store().put_invite(name, secret, expires))
        token = identity.Invite(name, secret, self._authority.fingerprint, gateway, link, expires).encode()
        expires_at = when(expires)
        assert expires_at is not None
        return InviteAnswer(name=name, token=token, expires_at=expires_at)

    async def join(self, body: JoinBody) -> JoinAnswer:
        """A certificate. The invitation is used up only by one that was really signed."""
        from controller.gateway.nodes.models import JoinAnswer  # noqa: PLC0415

        request = identity.JoinRequest(body.name, body.csr_pem, body.proof)
        answers: list[identity.JoinAnswer] = []

        def sign(secret: bytes) -> bool:
            answer = self._authority.answer_join(secret, request)
            if answer is not None:
                answers.append(answer)
            return answer is not None

        await asyncio.to_thread(lambda: self._store().use_invite(body.name, sign))
        if not answers:
            raise Unavailable("The invitation could not be used now.", remedy="Join again.")
        answer = answers[-1]
        return JoinAnswer(certificate_pem=answer.certificate_pem, ca_pem=answer.ca_pem, proof=answer.proof)

    async def forget(self, node: NodeName) -> None:
        """Void the invitation."""
        await asyncio.to_thread(lambda: self._store().drop_invite(node))
