"""The controller's program: `agentfarm-controller --config FILE`.

Builds every part, starts them in order (database, certificates, engine, link, gateway), and stops them in the opposite.
Nothing here decides; a part that dies takes the process down loudly, and the service manager starts it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
import uvloop

from agentfarm.errors import FarmError, Unavailable
from agentfarm.logging import start_logging
from agentfarm.settings import read_settings
from controller.authority import Authority
from controller.engine import Engine
from controller.gateway.server import GatewayServer
from controller.gateway.settings import GatewaySettings
from controller.journal.journal import Journal
from controller.journal.migrate import migrate
from controller.journal.reader import Reader
from controller.journal.store import Store
from controller.link.server import LinkPorts, LinkServer, LinkSettings
from controller.postgres import EmbeddedPostgres, ExternalPostgres
from controller.settings import ControllerSettings

log = structlog.get_logger("controller.main")

TOKEN_BYTES: Final = 32
HOUSEKEEPING_S: Final = 3600.0


class Controller:
    """All parts of one controller, started and stopped together."""

    def __init__(self, settings: ControllerSettings) -> None:
        self.settings = settings
        self._stack = contextlib.AsyncExitStack()
        self.gateway_url = ""
        self.link_address = ""

    async def start(self) -> None:
        """Start everything; returns when callers are served (also while another controller leads)."""
        settings, stack = self.settings, self._stack
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        token = operator_token(settings.data_dir / "operator.token")
        dsn = await self._start_database()
        await asyncio.to_thread(migrate, dsn)
        authority = await asyncio.to_thread(Authority.open, settings.data_dir / "ca")
        server = await asyncio.to_thread(authority.server_identity, _names(settings))

        reader, store = Reader(dsn), Store(dsn)
        stack.callback(reader.close)
        stack.callback(store.close)
        journal = Journal(dsn)
        engine = Engine(journal, settings.limits, seed=secrets.randbits(32))
        link = LinkServer(
            engine,
            settings.limits,
            LinkSettings(
                settings.link_host, settings.link_port, settings.beat_interval_s, settings.stop_exclusive_after_s
            ),
            LinkPorts(reader.bundle_chunks, reader.checkpoints, authority.sign_csr),
        )
        stack.callback(journal.close)
        await engine.start()
        stack.push_async_callback(engine.stop)
        stack.callback(journal.stop_waiting)  # a standby waits for the lead inside the journal
        await link.start(server.key_pem, server.certificate_pem, authority.ca_pem)
        stack.push_async_callback(link.stop)
        gateway = GatewayServer(
            engine,
            reader,
            store,
            authority,
            GatewaySettings(
                operator_token=token,
                gateway_host=settings.gateway_host,
                gateway_port=settings.gateway_port,
                link_address=f"{settings.public_host}:{link.port}",
                public_host=settings.public_host,
                payload_max_bytes=settings.payload_max_bytes,
            ),
            logs=link.logs,
            feeds=link.logs,
        )
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        housekeeper = asyncio.create_task(_keep_house(dsn, settings.retention_days), name="housekeeper")
        stack.callback(housekeeper.cancel)
        self.gateway_url = f"http://{settings.public_host}:{gateway.port}"
        self.link_address = f"{settings.public_host}:{link.port}"
        self._announce()

    async def stop(self) -> None:
        """Stop in the opposite order: callers, nodes, the engine's last turn, the database. Safe twice."""
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
        await database.start()
        self._stack.push_async_callback(database.stop)
        return database.dsn

    def _announce(self) -> None:
        """Write where we listen, for those on this machine who start us."""
        path = self.settings.data_dir / "controller.json"
        said = {"gateway": self.gateway_url, "link": self.link_address, "pid": os.getpid()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(said), encoding="utf-8")
        part.replace(path)
        log.info("controller.ready", gateway=self.gateway_url, link=self.link_address)


def operator_token(path: Path) -> str:
    """The operators' bearer token, made at first start with mode 0600. Raises Unavailable if others may read it."""
    if not path.exists():
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    if path.stat().st_mode & 0o077:
        raise Unavailable(f"{path} can be read by others.", remedy=f"Run: chmod 600 {path}")
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise Unavailable(f"{path} is empty.", remedy="Delete it; a new one is made at the next start.")
    return token


async def _keep_house(dsn: str, retention_days: int) -> None:
    """Once an hour, drop what ended longer ago than the retention says."""
    while True:
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
        await asyncio.sleep(HOUSEKEEPING_S)


def _names(settings: ControllerSettings) -> list[str]:
    """The names and addresses for which the link's certificate is valid."""
    return list(dict.fromkeys((settings.public_host, settings.link_host, "localhost", "127.0.0.1")))


def _progress(text: str) -> None:
    log.info("postgres.progress", doing=text)


async def _run(settings: ControllerSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    controller = Controller(settings)
    try:
        await controller.start()
        await stopping.wait()
        log.info("controller.stopping")
    finally:
        await controller.stop()


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit 0 when asked to stop, 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="agentfarm-controller", description="The controller of an agent farm.",
        epilog="Example: agentfarm-controller --config /etc/agentfarm/controller.yaml",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, help="settings, YAML; see docs/operating.md")
    arguments = parser.parse_args()
    try:
        settings = read_settings(ControllerSettings, arguments.config, "AGENTFARM_CONTROLLER")
        start_logging(settings.log_format, settings.log_level)
        uvloop.run(_run(settings))
    except FarmError as problem:
        print(f"agentfarm-controller: {problem}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
