"""How to reach a QuestDB, and with which passwords.

Owns the file other processes of the node read (`endpoint.json`, mode 0600). Two users: `admin` writes and migrates;
`reader` may only read, over the PostgreSQL wire, and is what agents get.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from agentfarm.errors import InvalidRequest
from agentfarm.files import DAMAGE, set_aside, write_private

ADMIN_USER = "admin"
READER_USER = "reader"
VENDOR_PASSWORD = "quest"  # noqa: S105 - the documented default of a server that is not ours
PASSWORD_BYTES = 24


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server's addresses and users. Its text form hides the passwords."""

    host: str
    http_port: int
    pg_port: int
    """0 where the PostgreSQL wire is not known (an external server)."""
    health_port: int = 0
    """The port of `/metrics`; 0 where there is none."""
    user: str = ""
    password: str = field(default="", repr=False)
    """Empty user: the server asks for none over HTTP."""
    pg_user: str = ADMIN_USER
    pg_password: str = field(default=VENDOR_PASSWORD, repr=False)
    reader_user: str = ADMIN_USER
    reader_password: str = field(default=VENDOR_PASSWORD, repr=False)
    is_tls: bool = False

    @property
    def http_url(self) -> str:
        """Base address of REST, console and line protocol, without credentials."""
        return f"{'https' if self.is_tls else 'http'}://{self.host}:{self.http_port}"

    def ingest_conf(self) -> str:
        """The configuration string for the official client: we flush and retry ourselves."""
        users = f"username={self.user};password={self.password};" if self.user else ""
        scheme = "https" if self.is_tls else "http"
        return f"{scheme}::addr={self.host}:{self.http_port};{users}auto_flush=off;retry_timeout=0;"

    def reader_url(self) -> str:
        """The PostgreSQL-wire address for agents: read only on a server of ours."""
        return self._pg_url(self.reader_user, self.reader_password)

    def admin_url(self) -> str:
        """The PostgreSQL-wire address with all rights."""
        return self._pg_url(self.pg_user, self.pg_password)

    def _pg_url(self, user: str, password: str) -> str:
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{self.host}:{self.pg_port}/qdb"

    def save(self, path: Path) -> None:
        """Write atomically, readable by the owner alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InvalidRequest, naming the file, when it is not that."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as failure:
            raise InvalidRequest(f"{path} is not the endpoint of a QuestDB: {failure}") from failure

    @classmethod
    def from_url(cls, url: str, *, pg_port: int = 8812) -> Self:
        """An already running server, `http://[user:password@]host:port`. Its PostgreSQL wire has the vendor's defaults
        unless the URL names a user, who is then taken for both."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{url!r} is not the address of a QuestDB.", remedy="Give http://HOST:9000.")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        is_tls = parts.scheme == "https"
        return cls(
            host=parts.hostname,
            http_port=parts.port or (443 if is_tls else 9000),
            pg_port=pg_port,
            user=user,
            password=password,
            pg_user=user or ADMIN_USER,
            pg_password=password or VENDOR_PASSWORD,
            reader_user=user or ADMIN_USER,
            reader_password=password or VENDOR_PASSWORD,
            is_tls=is_tls,
        )


@dataclass(frozen=True, slots=True)
class Passwords:
    """Generated once per data folder."""

    admin: str = field(repr=False)
    reader: str = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Those in the file, or new ones. A damaged file is set aside: the server takes new passwords at its start."""
        if path.exists():
            try:
                passwords = json.loads(path.read_text())
                return cls(admin=str(passwords["admin"]), reader=str(passwords["reader"]))
            except DAMAGE:
                set_aside(path)
        fresh = cls(secrets.token_urlsafe(PASSWORD_BYTES), secrets.token_urlsafe(PASSWORD_BYTES))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps({"admin": fresh.admin, "reader": fresh.reader}).encode())
        return fresh
