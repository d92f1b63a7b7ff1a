"""Content that is not the engine's: bundles, invitations, secrets. Each write is a transaction of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from agentfarm.agents import bundle as bundles
from agentfarm.errors import Forbidden
from controller.journal import schema
from controller.journal.queries.pool import Pool


class Store:
    """Writes from any thread, on a small pool. Each raises Unavailable while PostgreSQL is away."""

    def __init__(self, dsn: str, *, connections_max: int = 2, wall: Callable[[], float] = time.time) -> None:
        self._pool = Pool(dsn, "store", connections_max)
        self._wall = wall

    def close(self) -> None:
        """Close every connection. Safe twice."""
        self._pool.close()

    # -------------------------------------------------------------- bundles

    def put_bundle(self, digest: str, data: bytes) -> None:
        """Store a bundle under its digest, in chunks. Known already: nothing changes.

        Raises InvalidRequest when the bytes are not those the digest names.
        """
        bundles.verify(data, digest)
        size = schema.BUNDLE_CHUNK_BYTES

        def write(connection: Connection) -> None:
            row = {"digest": digest, "size": len(data), "stored_at": self._now()}
            if not connection.execute(insert(schema.bundle).values(row).on_conflict_do_nothing()).rowcount:
                return
            for number, start in enumerate(range(0, len(data), size)):
                chunk = {"digest": digest, "number": number, "data": data[start : start + size]}
                connection.execute(insert(schema.bundle_chunk).values(chunk))

        self._pool.run(write, may_repeat=True)

    # -------------------------------------------------------------- invitations

    def put_invite(self, name: str, secret: bytes, expires_at: float) -> None:
        """Invite a machine to be the node `name` until `expires_at` (wall). An earlier invitation of it is void.

        The secret is kept as it is, not hashed: joining proves knowledge of it by HMAC, which needs the secret itself.
        It opens one name for some minutes, and use and expiry erase it.
        """
        expires = datetime.fromtimestamp(expires_at, UTC)

        def write(connection: Connection) -> None:
            row = {"name": name, "secret": secret, "expires_at": expires, "used_at": None}
            put = insert(schema.invite).values(row)
            connection.execute(put.on_conflict_do_update(index_elements=["name"], set_=row))
            expired = schema.invite.c.expires_at < self._now()
            connection.execute(update(schema.invite).where(expired).values(secret=None))

        self._pool.run(write, may_repeat=True)

    def use_invite(self, name: str, verify: Callable[[bytes], bool]) -> None:
        """Use up the invitation of `name`, if `verify` accepts its secret. Of two callers at once only one succeeds.

        Raises Forbidden, saying why: never invited, used, expired, or not proved; the last leaves it unused. What
        `verify` raises passes through and leaves it unused too.
        """
        table = schema.invite

        def write(connection: Connection) -> Forbidden | None:
            row = connection.execute(select(table).where(table.c.name == name).with_for_update()).first()
            now = self._now()
            if row is None:
                return _refusal(f"{name!r} was not invited.", "unknown", name)
            if row.used_at is not None:
                return _refusal(f"The invitation of {name!r} was used at {row.used_at:%H:%M:%S} UTC.", "used", name)
            if row.expires_at <= now or row.secret is None:
                return _refusal(
                    f"The invitation of {name!r} expired at {row.expires_at:%Y-%m-%d %H:%M:%S} UTC.", "expired", name
                )
            if not verify(bytes(row.secret)):
                return _refusal(f"The proof does not fit the invitation of {name!r}.", "unproved", name)
            connection.execute(update(table).where(table.c.name == name).values(used_at=now, secret=None))
            return None

        refusal = self._pool.run(write, may_repeat=False)
        if refusal is not None:
            raise refusal

    def drop_invite(self, name: str) -> None:
        """Void the invitation of `name`, if there is one."""
        self._pool.run(
            lambda connection: connection.execute(delete(schema.invite).where(schema.invite.c.name == name)),
            may_repeat=True,
        )

    # -------------------------------------------------------------- secrets

    def put_secret(self, name: str, value: bytes) -> None:
        """Keep a small secret, such as an agent's API key. The key of the certificate authority never comes here."""
        row = {"name": name, "value": value, "stored_at": self._now()}
        put = insert(schema.secret).values(row).on_conflict_do_update(index_elements=["name"], set_=row)
        self._pool.run(lambda connection: connection.execute(put), may_repeat=True)

    def secret(self, name: str) -> bytes | None:
        """A secret's value; None if there is none of that name."""
        query = select(schema.secret.c.value).where(schema.secret.c.name == name)
        value = self._pool.run(lambda connection: connection.execute(query).scalar(), may_repeat=True)
        return bytes(value) if value is not None else None

    def drop_secret(self, name: str) -> None:
        """Forget a secret, if there is one."""
        self._pool.run(
            lambda connection: connection.execute(delete(schema.secret).where(schema.secret.c.name == name)),
            may_repeat=True,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)


def _refusal(problem: str, reason: str, name: str) -> Forbidden:
    return Forbidden(problem, remedy=f"Make a new invitation: farmctl node invite {name}", reason=reason, name=name)
