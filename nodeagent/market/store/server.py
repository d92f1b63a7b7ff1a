"""One QuestDB, kept running in a data folder.

`QuestDBServer.start` returns when the server answers and its tables stand. From then on it restarts a server that
crashed, with backoff; it resumes a suspended table by RESUME WAL, and kills a server that does not answer. A supervisor
that was itself killed leaves the server running. The next one in the folder takes it over, if it was started with the
same settings, and replaces it otherwise. `ExternalQuestDB` has the same face for a server that somebody else runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from agentfarm.backoff import Backoff
from agentfarm.errors import Conflict, FarmError, Unavailable
from agentfarm.files import FileLock, Locked, write_private
from agentfarm.service import Tasks
from nodeagent.market.store.endpoint import ADMIN_USER, READER_USER, Endpoint, Passwords
from nodeagent.market.store.health import DiskState, HealthReport, TableHealth, disk_room, disk_state, probe, repair
from nodeagent.market.store.migrate import migrate
from nodeagent.market.store.process import ServerProcess, find_servers, log_tail, rotate_log
from nodeagent.market.store.runtime import Runtime
from nodeagent.market.store.settings import LOOPBACK, Ports, QuestDBSettings, server_command, server_environment
from nodeagent.market.store.sql import query

READY_POLL_S: Final = 0.05
PROBE_TIMEOUT_S: Final = 5.0
UNANSWERING_MAX_S: Final = 60.0
"""A server that runs but answers nothing for this long is killed and started again."""

Notice = Callable[[str, Mapping[str, object]], None]
"""Gets each event: a fixed name such as `questdb.crashed`, and its facts."""


class ServerState(StrEnum):
    """Where a server stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    """Crashed; the next start waits for its backoff."""


class QuestDB(Protocol):
    """A QuestDB, our own or another's."""

    endpoint: Endpoint

    async def start(self) -> Endpoint:
        """Return when it answers and our tables stand. Raises Unavailable."""

    async def stop(self) -> None:
        """End what `start` began. Safe twice, and unstarted."""

    async def detach(self) -> None:
        """Let go of it, and leave it running."""

    async def health(self) -> HealthReport:
        """Look at it now. Never raises for a server that is away: that is an answer."""


class QuestDBServer:
    """A server of our own. One supervisor a folder, held by a lock."""

    def __init__(self, runtime: Runtime, settings: QuestDBSettings, on_event: Notice | None = None) -> None:
        self._runtime = runtime
        self._settings = settings
        self._tell: Notice = on_event or (lambda _name, _facts: None)
        self._lock: FileLock | None = None
        self._process: ServerProcess | None = None
        self._tasks = Tasks("questdb", self._supervision_failed)
        self._answered_at_s = 0.0
        self.endpoint: Endpoint
        self.state = ServerState.STOPPED
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """The server's own output."""
        return self._settings.folder / "log" / "questdb.log"

    @property
    def endpoint_file(self) -> Path:
        """Where other processes of the node read the address and passwords (mode 0600)."""
        return self._settings.folder / "endpoint.json"

    async def start(self) -> Endpoint:
        """Serve. Raises Conflict when another supervisor holds the folder, Unavailable when no server comes up."""
        assert not self._tasks, "started twice"
        self._settings.root.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(self._settings.folder)
        try:
            await self._bring_up()
        except BaseException:
            await self._end_process()
            self._unlock()
            raise
        self._tasks.run(self._keep_running(), name="keep running")
        self._tasks.run(self._keep_healthy(), name="keep healthy")
        return self.endpoint

    async def stop(self) -> None:
        """End the server: SIGTERM, then SIGKILL. Safe twice, and unstarted."""
        await self._leave()
        await self._end_process()
        self._unlock()

    async def detach(self) -> None:
        """Stop supervising and leave the server running, for a supervisor that is restarted."""
        await self._leave()
        if self._process is not None:
            self._process.detach()
            self._process = None
        self._unlock()

    async def health(self) -> HealthReport:
        """Look at the server and its disk now."""
        free, total = disk_room(self._settings.folder)
        disk = disk_state(
            free,
            total,
            low_bytes=self._settings.disk_low_bytes,
            low_share=self._settings.disk_low_share,
            full_bytes=self._settings.disk_full_bytes,
        )
        problems = (
            [] if disk is DiskState.OK else [f"The disk is {disk}: {free // 2**20} MiB free of {total // 2**20}."]
        )
        tables: tuple[TableHealth, ...] = ()
        views: tuple[str, ...] = ()
        is_up = True
        try:
            tables, views = await probe(self.endpoint, PROBE_TIMEOUT_S)
        except FarmError as failure:
            is_up = False
            problems.append(failure.problem)
        problems += [
            f"Table {table.name} is suspended: rows are accepted and not shown."
            for table in tables
            if table.is_suspended
        ]
        problems += [f"View {name} is invalid." for name in views]
        return HealthReport(
            is_up=is_up,
            tables=tables,
            invalid_views=views,
            disk=disk,
            disk_free_bytes=free,
            disk_total_bytes=total,
            rss_bytes=self._process.rss_bytes() if self._process else 0,
            cpu_s=self._process.cpu_s() if self._process else 0.0,
            restarts=self.restarts,
            problems=tuple(problems),
        )

    async def _bring_up(self) -> None:
        """Take over or start a server, wait until it answers, bring its tables up to date."""
        self.state = ServerState.STARTING
        settings = self._settings
        passwords = Passwords.load_or_create(settings.folder / "passwords.json")
        memory = settings.folder / "server.json"
        remembered = _remembered(memory)
        self._process = await self._take_over(remembered, passwords)
        if self._process is None:
            ports = _choose_ports(remembered.get("ports"))
            environment = server_environment(settings, ports, passwords)
            command = server_command(self._runtime, settings)
            facts = {"ports": [ports.http, ports.pg, ports.health], "fingerprint": _fingerprint(command, environment)}
            write_private(memory, json.dumps(facts).encode())
            self.endpoint = _endpoint(ports, passwords)
            self._process = ServerProcess.start(command, self.log, {**os.environ, **environment})
        await self._until_ready()
        await migrate(self.endpoint)
        self.endpoint.save(self.endpoint_file)
        self.state = ServerState.READY
        self._answered_at_s = time.monotonic()
        self._tell("questdb.ready", {"pid": self._process.pid, "http_port": self.endpoint.http_port})

    async def _take_over(self, remembered: dict[str, object], passwords: Passwords) -> ServerProcess | None:
        """An own server that still runs here, when it is the one we would start; any other on our root is ended."""
        servers = find_servers(self._settings.root)
        ports = _ports(remembered.get("ports"))
        if ports and len(servers) == 1:
            command = server_command(self._runtime, self._settings)
            environment = server_environment(self._settings, ports, passwords)
            self.endpoint = _endpoint(ports, passwords)
            if remembered.get("fingerprint") == _fingerprint(command, environment) and await _answers(self.endpoint):
                self._tell("questdb.taken_over", {"pid": servers[0].pid})
                return servers[0]
        for process in servers:
            self._tell("questdb.replaced", {"pid": process.pid})
            await process.end(self._settings.stop_within_s)
        return None

    async def _until_ready(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(self._settings.ready_within_s):
                while not await _answers(self.endpoint):
                    if not self._process.is_running:
                        tail = log_tail(self.log, 800)
                        raise Unavailable(
                            f"QuestDB ended at its start with status {self._process.exit_code}: {tail}",
                            remedy=f"Its whole output is in {self.log}.",
                        )
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"QuestDB did not answer within {self._settings.ready_within_s:.0f} s of its start.",
                remedy=f"Its output is in {self.log}.",
            ) from None

    async def _keep_running(self) -> None:
        settings = self._settings
        backoff = Backoff(settings.restart_backoff_s, settings.restart_backoff_max_s)
        while True:
            assert self._process is not None
            up_since_s = time.monotonic()
            await self._process.gone()
            self.state = ServerState.DOWN
            self.restarts += 1
            if time.monotonic() - up_since_s > settings.restart_backoff_max_s:
                backoff.reset()
            facts = {"exit_code": self._process.exit_code, "restarts": self.restarts, "log": log_tail(self.log, 400)}
            self._tell("questdb.crashed", facts)
            while True:
                await asyncio.sleep(backoff.next_s())
                try:
                    await self._bring_up()
                    break
                except (FarmError, OSError) as failure:  # OSError: a full disk does not end the supervision
                    self.state = ServerState.DOWN
                    self._tell("questdb.start_failed", {"problem": str(failure)})
                    await self._end_process()

    async def _keep_healthy(self) -> None:
        while True:
            await asyncio.sleep(self._settings.check_every_s)
            try:
                rotate_log(self.log, self._settings.log_max_bytes, self._settings.log_files)
            except OSError as failure:  # a full disk must not end the watch over it
                self._tell("questdb.log_not_rotated", {"problem": str(failure)})
            if self.state is not ServerState.READY or self._process is None:
                continue
            report = await self.health()
            if report.is_up:
                self._answered_at_s = time.monotonic()
                for deed in await repair(self.endpoint, report.tables, report.invalid_views):
                    self._tell("questdb.repaired", {"deed": deed})
            elif time.monotonic() - self._answered_at_s > UNANSWERING_MAX_S:
                self._tell("questdb.unanswering", {"pid": self._process.pid, "seconds": UNANSWERING_MAX_S})
                self._process.signal(signal.SIGKILL)

    def _supervision_failed(self, problem: BaseException) -> None:
        """Supervision that ends by itself is a bug of ours: say so, loudly."""
        self._tell("questdb.supervision_failed", {"problem": repr(problem)})

    async def _leave(self) -> None:
        await self._tasks.end()
        self.state = ServerState.STOPPED

    async def _end_process(self) -> None:
        if self._process is not None:
            await self._process.end(self._settings.stop_within_s)
            self._process = None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class ExternalQuestDB:
    """A server that somebody else runs (`--questdb URL`): our tables are made in it, its process is left alone."""

    def __init__(self, url: str, *, pg_port: int = 8812, endpoint_file: Path | None = None) -> None:
        self.endpoint = Endpoint.from_url(url, pg_port=pg_port)
        self.endpoint_file = endpoint_file

    async def start(self) -> Endpoint:
        """Check that it answers, and migrate. Raises Unavailable."""
        await migrate(self.endpoint)
        if self.endpoint_file:
            self.endpoint.save(self.endpoint_file)
        return self.endpoint

    async def stop(self) -> None:
        """Nothing to end."""

    async def detach(self) -> None:
        """Nothing to let go of."""

    async def health(self) -> HealthReport:
        """Tables and views; the disk is its owner's."""
        try:
            tables, views = await probe(self.endpoint, PROBE_TIMEOUT_S)
        except FarmError as failure:
            return HealthReport(is_up=False, problems=(failure.problem,))
        problems = tuple(f"Table {table.name} is suspended." for table in tables if table.is_suspended)
        return HealthReport(is_up=True, tables=tables, invalid_views=views, problems=problems)


def _lock_folder(folder: Path) -> FileLock:
    try:
        return FileLock(folder / "supervisor.lock")
    except Locked as error:
        raise Conflict(
            f"Another process supervises the QuestDB in {folder}.", remedy="Stop it, or use another folder."
        ) from error


def _endpoint(ports: Ports, passwords: Passwords) -> Endpoint:
    return Endpoint(
        host=LOOPBACK,
        http_port=ports.http,
        pg_port=ports.pg,
        health_port=ports.health,
        user=ADMIN_USER,
        password=passwords.admin,
        pg_password=passwords.admin,
        reader_user=READER_USER,
        reader_password=passwords.reader,
    )


async def _answers(endpoint: Endpoint) -> bool:
    with suppress(FarmError):
        await query(endpoint, "SELECT 1", timeout_s=PROBE_TIMEOUT_S)
        return True
    return False


def _remembered(memory: Path) -> dict[str, object]:
    """What the last supervisor wrote down; nothing when it is absent or damaged: it only saves work."""
    try:
        content = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _ports(value: object) -> Ports | None:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(port, int) for port in value):
        return Ports(*value)
    return None


def _choose_ports(value: object) -> Ports:
    """The remembered ports while they are free, so that addresses stay; else three free ones."""
    ports = _ports(value)
    if ports and all(_is_free(port) for port in (ports.http, ports.pg, ports.health)):
        return ports
    holders = [socket.create_server((LOOPBACK, 0)) for _ in range(3)]
    try:
        return Ports(*(holder.getsockname()[1] for holder in holders))
    finally:
        for holder in holders:
            holder.close()


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
        return True
    except OSError:
        return False


def _fingerprint(command: list[str], environment: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([command, sorted(environment.items())]).encode()).hexdigest()
