"""One controller: every part is built, started in order (database, engine, link, gateway), and stopped in reverse.

After kill -9 all work waits for a start, so the order is that of who waits: nodes first, then plain submits. Both are
served while a thread still imports the rest of the gateway. What nothing needs at once (SQLAlchemy) comes last. When
every call is served, `controller.ready` is logged and /healthz answers. README.md draws the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from agentfarm.errors import FarmError, Unavailable
from agentfarm.files import write_file, write_private
from agentfarm.service import Service
from controller.authority import Authority
from controller.engine import Engine
from controller.journal.journal import Journal
from controller.journal.migrations.migrate import migrate
from controller.link.server import LinkPorts, LinkServer, LinkSettings, LinkTls
from controller.link.sessions import Sessions
from controller.postgres import EmbeddedPostgres, ExternalPostgres
from controller.settings import ControllerSettings
from controller.start import Late, StartTimes

if TYPE_CHECKING:
    from controller.gateway.server import GatewayServer
    from controller.journal.queries.reader import Reader
    from controller.journal.queries.store import Store

log = structlog.get_logger("controller.main")

TOKEN_BYTES: Final = 32
HOUSEKEEPING_S: Final = 3600.0
LEAD_FIRST_S: Final = 1.0
"""How long the import of the gateway waits, so that taking the lead and reading the state have the processor."""


class Controller(Service):
    """All parts of one controller, started and stopped together."""

    def __init__(self, settings: ControllerSettings, times: StartTimes | None = None) -> None:
        super().__init__("controller")
        self.settings = settings
        self._times = times or StartTimes()
        self._stack = contextlib.AsyncExitStack()
        self.gateway_url = ""
        self.link_address = ""

    async def _begin(self) -> None:
        """Start everything; returns when callers are served (also while another controller leads)."""
        settings, stack, times = self.settings, self._stack, self._times
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        token = operator_token(settings.data_dir / "operator.token")
        with times.step("postgres"):
            dsn = await self._start_database()
        with times.step("schema"):
            await asyncio.to_thread(migrate, dsn)
        reader, store = Late(lambda: _reader(dsn)), Late(lambda: _store(dsn))
        stack.callback(_close, reader)
        stack.callback(_close, store)
        journal, sessions = Journal(dsn), Sessions()
        engine = Engine(journal, sessions, settings.limits, seed=secrets.randbits(32))
        stack.callback(journal.close)
        self.own(engine)
        await engine.start()  # it takes the lead and reads the state meanwhile
        stack.push_async_callback(engine.stop)
        stack.callback(journal.stop_waiting)  # a standby waits for the lead inside the journal
        with times.step("certificates"):
            authority = await asyncio.to_thread(Authority.open, settings.data_dir / "ca")
            link = await asyncio.to_thread(self._link, engine, sessions, reader, authority)
        self.own(link)
        with times.step("link"):
            await link.start()
        stack.push_async_callback(link.stop)
        with times.step("lead"), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAD_FIRST_S):
                await engine.leading.wait()
        times.reached("nodes_served")
        self.link_address = f"{settings.public_host}:{link.port}"
        with times.step("gateway"):
            gateway = await asyncio.to_thread(self._gateway, engine, reader, store, authority, token, link)
            self.own(gateway)
            stack.push_async_callback(gateway.stop)
            await gateway.listen()
            times.reached("submits_served")
            await gateway.complete()
        self.gateway_url = f"http://{settings.public_host}:{gateway.port}"
        self._announce()
        self.run_task(self._keep_house(dsn, reader, store), name="housekeeper")

    async def _finish(self) -> None:
        """Stop in the opposite order: callers, nodes, the engine's last turn, the database."""
        await self._tasks.end()
        await self._stack.aclose()
        with contextlib.suppress(OSError):
            (self.settings.data_dir / "controller.json").unlink()

    async def _start_database(self) -> str:
        settings = self.settings
        database: EmbeddedPostgres | ExternalPostgres
        if settings.database_url is not None:
            database = ExternalPostgres(settings.database_url)
        else:
            database = EmbeddedPostgres(settings.data_dir / "postgres", progress=_progress)
        self.own(database)
        await database.start()
        self._stack.push_async_callback(database.stop)
        return database.dsn

    def _link(self, engine: Engine, sessions: Sessions, reader: Late[Reader], authority: Authority) -> LinkServer:
        """The link, not yet listening. On a thread: it makes the certificate of its server."""
        settings = self.settings
        server = authority.server_identity(_names(settings))
        times = LinkSettings(
            settings.link_host, settings.link_port, settings.beat_interval_s, settings.stop_exclusive_after_s
        )
        ports = LinkPorts(
            lambda digest, offset: reader().bundle_chunks(digest, offset),
            lambda *which: reader().checkpoints(*which),
            authority.sign_csr,
        )
        tls = LinkTls(server.key_pem, server.certificate_pem, authority.ca_pem)
        return LinkServer(engine, sessions, settings.limits, times, ports, tls)

    def _gateway(
        self,
        engine: Engine,
        reader: Late[Reader],
        store: Late[Store],
        authority: Authority,
        token: str,
        link: LinkServer,
    ) -> GatewayServer:
        """The gateway, not yet listening. On a thread: its libraries take longer than all the rest of a start."""
        from controller.gateway.server import GatewayServer  # noqa: PLC0415 - nodes are served before it is here
        from controller.gateway.settings import GatewaySettings  # noqa: PLC0415

        settings = self.settings
        gateway_settings = GatewaySettings(
            operator_token=token,
            gateway_host=settings.gateway_host,
            gateway_port=settings.gateway_port,
            link_address=self.link_address,
            public_host=settings.public_host,
            payload_max_bytes=settings.payload_max_bytes,
            http=settings.http,
            allowed_hosts=settings.allowed_hosts,
        )
        return GatewayServer(
            engine, reader, store, authority, gateway_settings, logs=link.answers, services=link.answers
        )

    def _announce(self) -> None:
        """Write our addresses, for programs on this machine that start us, and log what the start took."""
        path = self.settings.data_dir / "controller.json"
        announcement = {"gateway": self.gateway_url, "link": self.link_address, "pid": os.getpid()}
        write_file(path, json.dumps(announcement).encode(), is_durable=False)
        log.info("controller.ready", gateway=self.gateway_url, link=self.link_address)
        log.info("controller.started", **self._times.fields())

    async def _keep_house(self, dsn: str, *lates: Late[Reader] | Late[Store]) -> None:
        """Make what the start left for later. Then, once an hour, drop tasks that ended before the retention."""
        for late in lates:
            try:
                await asyncio.to_thread(late)
            except FarmError as problem:  # a call that needs it tries again
                log.warning("controller.late_part_failed", problem=str(problem))
        if not gc.isenabled():  # main stopped it: what a start brings lives as long as the process
            gc.freeze()
            gc.enable()
        while True:
            await _forget_old(dsn, self.settings.retention_days)
            await asyncio.sleep(HOUSEKEEPING_S)


def operator_token(path: Path) -> str:
    """The operators' bearer token, made at first start with mode 0600. Raises Unavailable if others may read it."""
    if not path.exists():
        write_private(path, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode())
    if path.stat().st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others.", remedy=f"Run: chmod 600 {path}")
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise Unavailable(f"{path} is empty.", remedy="Delete it; a new one is made at the next start.")
    return token


async def _forget_old(dsn: str, retention_days: int) -> None:
    day = datetime.fromtimestamp(time.time(), UTC).date() - timedelta(days=retention_days)
    journal = Journal(dsn)
    try:
        dropped = await asyncio.to_thread(journal.forget_before, day)
        if dropped:
            log.info("journal.days_dropped", before=day.isoformat(), days=dropped)
    except FarmError as problem:
        log.warning("journal.retention_failed", problem=str(problem))
    finally:
        journal.close()


def _reader(dsn: str) -> Reader:
    from controller.journal.queries.reader import Reader  # noqa: PLC0415 - SQLAlchemy, when somebody asks for history

    return Reader(dsn)


def _store(dsn: str) -> Store:
    from controller.journal.queries.store import Store  # noqa: PLC0415 - SQLAlchemy

    return Store(dsn)


def _close(late: Late[Reader] | Late[Store]) -> None:
    if late.made is not None:
        late.made.close()


def _names(settings: ControllerSettings) -> list[str]:
    """The names and addresses for which the link's certificate is valid."""
    return list(dict.fromkeys((settings.public_host, settings.link_host, "localhost", "127.0.0.1")))


def _progress(text: str) -> None:
    log.info("postgres.progress", doing=text)
