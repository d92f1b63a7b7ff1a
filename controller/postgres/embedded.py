"""The PostgreSQL that comes with the farm. The controller starts it, restarts it when it dies, and stops it.

It is our child process, not a daemon of its own. When the controller is killed, the server lives on and the next
controller adopts it. One controller at a time supervises a folder; a lock file says which.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psutil
import psycopg2
import structlog

from agentfarm.backoff import Backoff
from agentfarm.errors import Conflict, Unavailable
from agentfarm.files import FileLock, Locked
from agentfarm.process import Child
from agentfarm.service import Service
from controller.postgres import cluster as on_disk
from controller.postgres.cluster import DATABASE, Cluster
from controller.postgres.external import answer

log = structlog.get_logger(__name__)

RESTART_FIRST_S: Final = 0.05
RESTART_MAX_S: Final = 5.0
HEALTHY_AFTER_S: Final = 30.0
"""A server that lived this long restarts without a wait."""
READY_POLL_S: Final = 0.02
LAST_WORDS_LINES: Final = 3
STOP_FAST_S: Final = 5.0
"""A slow disk can delay a fast stop. An immediate one loses nothing: the next start replays the log."""
START_DEADLINE_S: Final = 120.0
"""After a power cut the replay of a long log takes time."""


class EmbeddedPostgres(Service):
    """A private server in `folder`, on a Unix socket only.

    settings: laid over cluster.SETTINGS (tests turn fsync off). progress: gets, in words, what takes long.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__("postgres")
        self._folder = folder
        self._settings = dict(settings or {})
        self._progress = progress
        self._cluster: Cluster | None = None
        self._process: psutil.Process | None = None
        self._is_ready = asyncio.Event()
        self._lock: FileLock | None = None
        self._stop_s = STOP_FAST_S
        self.restarts = 0
        """How often it died and was started again."""
        self.died = asyncio.Event()
        """Set at each death. A waiter for the next death clears it."""

    @property
    def dsn(self) -> str:
        """A libpq URL; valid after `start`, and the same after every restart."""
        return self.cluster.dsn()

    @property
    def cluster(self) -> Cluster:
        """The files behind it."""
        if self._cluster is None:
            raise Unavailable("The embedded PostgreSQL was not started.", remedy="Call start() first.")
        return self._cluster

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while one lives."""
        return self._process.pid if self._process is not None else None

    async def _begin(self) -> None:
        """Make the data folder on first use, adopt or start the server, and return once it takes connections.

        Raises Unavailable with a remedy; Conflict when another process supervises the same folder.
        """
        try:
            self._take_lock()
        except OSError as error:
            raise Unavailable(
                f"The database's folder {self._folder} cannot be used: {error}",
                remedy="Choose another data_dir, or make this one writable.",
            ) from error
        self._cluster = await asyncio.to_thread(on_disk.prepare, self._folder, self._settings, self._progress)
        self._process = await self._adopt() or await self._spawn()
        self._is_ready.set()
        await asyncio.to_thread(_make_database, self._cluster)
        self.run_task(self._supervise())

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once it takes connections, also in the middle of a restart; Unavailable after `deadline_s`."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._is_ready.wait()
                await answer(self.dsn, deadline_s)
        except TimeoutError:
            raise Unavailable(
                f"The embedded PostgreSQL is not ready after {deadline_s:g} s.",
                remedy=f"See {self.cluster.log_path}",
            ) from None

    async def stop(self, deadline_s: float = STOP_FAST_S) -> None:
        """Stop the server: fast, at the deadline immediately."""
        self._stop_s = deadline_s
        await super().stop()

    async def _finish(self) -> None:
        await self._tasks.end()
        self._is_ready.clear()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(on_disk.end, process, self._stop_s)
        if self._cluster is not None and self._lock is not None:
            await asyncio.to_thread(on_disk.clear, self._cluster)
            await asyncio.to_thread(on_disk.remove_socket_folder, self._cluster)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # -------------------------------------------------------------- one supervisor

    def _take_lock(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FileLock(self._folder / "lock")
        except Locked as locked:
            raise Conflict(
                f"Another controller (process {locked.holder}) uses {self._folder}.",
                remedy="Stop it, or give this one a data_dir of its own.",
            ) from None

    # -------------------------------------------------------------- one server

    async def _adopt(self) -> psutil.Process | None:
        """The server an earlier controller left running, if it is sound; else None, and nothing of it remains."""
        postmaster = on_disk.read_postmaster(self.cluster)
        process = on_disk.server_of(self.cluster, postmaster.pid) if postmaster is not None else None
        if postmaster is None or process is None:
            await asyncio.to_thread(on_disk.clear, self.cluster)
            return None
        if postmaster.status not in {"ready", "starting"} or postmaster.socket_folder != self.cluster.socket_folder:
            await asyncio.to_thread(on_disk.end, process, START_DEADLINE_S)
            await asyncio.to_thread(on_disk.clear, self.cluster)
            return None
        log.info("postgres.adopted", pid=process.pid)
        await self._until_ready(process)
        return process

    async def _spawn(self) -> psutil.Process:
        self._progress("starting PostgreSQL")
        try:
            child = await asyncio.to_thread(on_disk.spawn, self.cluster)
            process = psutil.Process(child.pid)
        except (OSError, psutil.NoSuchProcess) as error:
            raise Unavailable(f"PostgreSQL did not start: {error}", remedy=f"See {self.cluster.log_path}") from error
        threading.Thread(target=child.wait, name="postgres-reaper", daemon=True).start()
        try:
            await self._until_ready(process)
        except BaseException:
            await asyncio.to_thread(on_disk.end, process, 1.0)
            raise
        log.info("postgres.started", pid=process.pid)
        return process

    async def _until_ready(self, process: psutil.Process) -> None:
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                while not on_disk.is_ready(self.cluster, process.pid):
                    if not _is_alive(process):
                        raise Unavailable(
                            f"PostgreSQL ended at start: {_last_words(self.cluster)}",
                            remedy=f"See {self.cluster.log_path}",
                        )
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"PostgreSQL was not ready within {START_DEADLINE_S:g} s.", remedy=f"See {self.cluster.log_path}"
            ) from None

    # -------------------------------------------------------------- healing

    async def _supervise(self) -> None:
        """Wait for the server's death and start it again. After each early death it waits longer."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(RESTART_FIRST_S, RESTART_MAX_S)
        while True:
            assert self._process is not None
            born = loop.time()
            await _exit_of(self._process)
            self._is_ready.clear()
            self._process = None
            self.restarts += 1
            self.died.set()
            wait_s = backoff.next_s()
            if loop.time() - born > HEALTHY_AFTER_S:
                backoff.reset()
                wait_s = 0.0
            log.warning("postgres.died", restarts=self.restarts, restart_after_s=round(wait_s, 3))
            while self._process is None:
                await asyncio.sleep(wait_s)
                try:
                    await asyncio.to_thread(on_disk.clear, self.cluster)
                    self._process = await self._spawn()
                except Unavailable as error:
                    wait_s = backoff.next_s()
                    log.error("postgres.restart_failed", problem=str(error), next_try_s=round(wait_s, 3))
            self._is_ready.set()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def _exit_of(process: psutil.Process) -> None:
    """Return when the process has ended, child of ours or not."""
    try:
        watched = Child(process.pid)
    except ProcessLookupError:
        return
    try:
        if _is_alive(process):  # else the pid is another's by now
            await watched.gone()
    finally:
        watched.detach()


def _last_words(cluster: Cluster) -> str:
    """The last lines of its log, which tell why, without the time before each."""
    lines = cluster.log_path.read_text(errors="replace").splitlines()[-LAST_WORDS_LINES:]
    return " / ".join(line.split("] ", 1)[-1] for line in lines) or "it said nothing"


def _make_database(cluster: Cluster) -> None:
    """CREATE DATABASE on first use."""
    try:
        connection = psycopg2.connect(cluster.dsn("postgres"), connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise Unavailable(f"PostgreSQL refused: {error}", remedy=f"See {cluster.log_path}") from error
