"""The programs of the market service, QuestDB and the feed, kept running beside everything else.

Nothing here ever stops the daemon: without Java, jar, disk or network the node works on without market data and says
why. Both processes outlive a daemon that dies, and are taken over by the next one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentfarm.backoff import Backoff
from agentfarm.errors import FarmError
from agentfarm.files import write_file
from agentfarm.process import Child
from agentfarm.service import first_of
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder
from nodeagent.replicas.logs import last_lines
from nodeagent.runner.protocol.output_log import rotate
from nodeagent.services.market.products import AssignedProducts
from nodeagent.services.market.settings import DEFAULT_SOURCE, MarketSettings, market_kind
from nodeagent.services.market.status import FeedStatus, MarketStatus

if TYPE_CHECKING:
    from nodeagent.market.store.runtime import DownloadProgress
    from nodeagent.market.store.server import QuestDB, QuestDBServer

RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
FEED_RETRY_MIN_S: Final = 2.0
FEED_STOP_S: Final = 12.0
FEED_LOG_BYTES_MAX: Final = 8 * 2**20
FEED_UNUSABLE: Final = 5
FAILED_CHARS_MAX: Final = 300
LOOK_AGAIN_S: Final = 0.1
"""Between two looks whether a feed that was just started has said its first word."""
DISK_FULL_BYTES: Final = 16 * 2**20
"""With less, what goes wrong goes wrong for want of room."""


class Market:
    """Runs beside the daemon's other parts. `on_ready` gets the address for agents when it is known."""

    def __init__(
        self, settings: MarketSettings, folder: Path, runtime: RuntimeFolder, on_ready: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._runtime = runtime
        self._on_ready = on_ready
        self._server: QuestDB | None = None
        self._feed: Child | None = None
        self._failed = ""
        self._doing = "starting"
        self._assigned: AssignedProducts | None = None
        if settings.takes_products:
            self._assigned = AssignedProducts(folder / "feed" / "assigned.json")
        self._changed = asyncio.Event()
        self._feed_status = FeedStatus(folder / "feed" / "status.json", market_kind(settings))
        self._rows_before = 0
        """Stored by feeds that ended."""
        self.products: tuple[str, ...] = ()
        """Those of our own settings, once QuestDB is there."""

    @property
    def takes_products(self) -> bool:
        """Whether the controller may give it products."""
        return self._assigned is not None

    @property
    def source(self) -> str:
        """Where its feed gets them."""
        return str(self._settings.feed.get("source", DEFAULT_SOURCE))

    @property
    def served(self) -> tuple[str, ...]:
        """Every product that the feed should serve: our own, then those assigned."""
        return tuple(
            dict.fromkeys((*self._settings.products, *(self._assigned.products if self._assigned is not None else ())))
        )

    @property
    def failed(self) -> str:
        """Why there is no market data; empty while there is, or may yet be."""
        return self._failed.removeprefix("failed: ")

    def assign(self, products: Iterable[str]) -> None:
        """The controller's products beside our own: a whole list. It is remembered and handed to the feed."""
        if self._assigned is not None and self._assigned.take(products):
            log.info("market.assigned", products=list(self._assigned.products))
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                await self._bring_up()
                backoff.reset()
                await self._keep_feeding()
            except (FarmError, OSError) as problem:
                self._fail(str(problem))
            await self._end_server()
            await asyncio.sleep(backoff.next_s())

    async def stop(self, *, with_server: bool) -> None:
        """End both processes, or let go of them. Safe twice, and unstarted."""
        feed, self._feed = self._feed, None
        if feed is not None:
            if with_server:
                await feed.end(FEED_STOP_S)
            else:
                feed.detach()
        server, self._server = self._server, None
        if server is not None:
            await (server.stop() if with_server else server.detach())

    def status(self) -> MarketStatus:
        """Now."""
        feed = self._feed_status.read() if self._feed is not None else None  # an earlier feed's words are no news
        if self._failed or feed is None:
            return MarketStatus(self._failed or self._doing, self._rows_before)
        rows = self._rows_before + int(feed.get("rows_stored", 0))
        return MarketStatus(self._feed_status.state(feed), rows, max(0, int(feed.get("lag_ms", 0))), feed)

    # -------------------------------------------------------------- QuestDB

    async def _bring_up(self) -> None:
        """Raises FarmError, saying what is missing."""
        folder = self._folder / "questdb"
        folder.mkdir(parents=True, exist_ok=True)
        server = self._server = await _make_server(self._settings, folder, self._fetching)
        self._doing = "starting"
        endpoint = await server.start()
        self._failed = ""
        self.products = self._settings.products
        self._on_ready(endpoint.reader_url())
        log.info("market.questdb_ready", http_port=endpoint.http_port, pg_port=endpoint.pg_port)

    def _fetching(self, progress: DownloadProgress) -> None:
        self._failed = ""  # of an earlier try
        done, total = progress.done_bytes // 2**20, progress.total_bytes // 2**20
        self._doing = f"starting: fetching QuestDB, {done} of {total or '?'} MiB"

    async def _end_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with suppress(FarmError, OSError):
                await server.stop()

    # -------------------------------------------------------------- the feed

    async def _keep_feeding(self) -> None:
        """Keep the feed running while QuestDB is; a feed that cannot be used is tried again ever less often."""
        backoff = Backoff(FEED_RETRY_MIN_S, RETRY_MAX_S)
        while True:
            began = time.monotonic()
            try:
                feed = self._feed = self._find_or_start()
            except OSError as problem:  # a full disk, say: QuestDB is left as it is
                self._fail(str(problem))
                await asyncio.sleep(backoff.next_s())
                continue
            self._failed = ""
            code = await self._until_exited(feed)
            if self._feed is not feed:
                await asyncio.Event().wait()  # stopped, by us; so are we, in a moment
            last = self._feed_status.read() or {}
            self._rows_before += int(last.get("rows_stored", 0))
            self._feed_status.forget()
            lasted_s = time.monotonic() - began
            if lasted_s > RETRY_MAX_S:
                backoff.reset()
            wait_s = backoff.next_s()
            words = (last_lines(self._feed_log, 1) or [""])[0]
            log.warning("market.feed_ended", code=code, said=words[:FAILED_CHARS_MAX], again_in_s=round(wait_s, 1))
            if code == FEED_UNUSABLE or lasted_s < max(wait_s, FEED_RETRY_MIN_S):
                self._fail(words or f"the feed ended with code {code}")
            await asyncio.sleep(wait_s)

    async def _until_exited(self, feed: Child) -> int | None:
        """Tell it of changed products as long as it lives. Returns its exit code."""
        while True:
            try:
                await first_of(feed.gone(), self._changed.wait())
                if feed.exited.done():
                    return feed.exited.result()
                self._changed.clear()
                _write_config(self._config, feed_settings(self._settings, self._folder, self.served))
                while self._feed_status.pid() != feed.pid and not feed.exited.done():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(LOOK_AGAIN_S)  # one that does not listen yet would die of the signal
                feed.signal(signal.SIGHUP)
            except OSError as problem:  # a full disk: the feed goes on with what it has
                log.warning("market.feed_not_told", problem=str(problem))
                await asyncio.sleep(RETRY_MIN_S)
                self._changed.set()

    @property
    def _config(self) -> Path:
        return self._folder / "feed" / "settings.json"

    @property
    def _feed_log(self) -> Path:
        return self._folder / "feed" / "log"

    def _find_or_start(self) -> Child:
        folder = self._folder / "feed"
        folder.mkdir(parents=True, exist_ok=True)
        config, settings = self._config, feed_settings(self._settings, self._folder, self.served)
        self._changed.clear()
        pid = self._feed_status.pid()
        child = Child.find(pid, str(config)) if pid else None
        old = _read_config(config)
        if child is not None and old == settings:
            log.info("market.feed_found", pid=child.pid)
            return child
        _write_config(config, settings)
        if child is not None and {**old, "products": settings["products"]} == settings:
            log.info("market.feed_found", pid=child.pid)
            child.signal(signal.SIGHUP)
            return child
        if child is not None:  # it has other settings
            child.signal(signal.SIGKILL)
        self._feed_status.forget()
        if self._feed_log.exists() and self._feed_log.stat().st_size > FEED_LOG_BYTES_MAX:
            rotate(self._feed_log)
        command = self._runtime.command(OUR_PYTHON, "nodeagent.market.feed", "--config", str(config))
        return Child.start(command, self._feed_log)

    def _fail(self, why: str) -> None:
        room = os.statvfs(self._folder)
        full = "the disk is full: " if room.f_bavail * room.f_frsize < DISK_FULL_BYTES else ""
        words = f"failed: {full}{' '.join(why.split())[:FAILED_CHARS_MAX]}"
        if words != self._failed:
            log.warning("market.failed", why=why)
        self._failed = words


def feed_settings(settings: MarketSettings, folder: Path, products: Iterable[str]) -> dict[str, Any]:
    """The feed process's settings file: `nodeagent.market.feed.settings.FeedSettings`, as JSON."""
    return {
        "source": DEFAULT_SOURCE,
        **settings.feed,
        "products": list(products),
        "capture_dir": str(folder / "capture"),
        "endpoint_file": str(folder / "questdb" / "endpoint.json"),
        "status_file": str(folder / "feed" / "status.json"),
        "questdb_dir": None if settings.questdb_url else str(folder / "questdb"),
    }


def _read_config(config: Path) -> dict[str, Any]:
    """The feed's settings file; nothing when it cannot be read."""
    try:
        settings = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _write_config(config: Path, settings: Mapping[str, Any]) -> None:
    """Replace the file atomically, unless it says so already: a full disk must not keep a feed from starting."""
    if _read_config(config) != settings:
        write_file(config, json.dumps(settings, indent=1).encode(), is_durable=False)


async def _make_server(
    settings: MarketSettings, folder: Path, on_progress: Callable[[DownloadProgress], None]
) -> QuestDB:
    from nodeagent.market.store.server import ExternalQuestDB, QuestDBServer  # noqa: PLC0415 - most nodes have no market

    if settings.questdb_url:
        return ExternalQuestDB(settings.questdb_url, endpoint_file=folder / "endpoint.json")
    from nodeagent.market.store.runtime import obtain_runtime  # noqa: PLC0415
    from nodeagent.market.store.settings import QuestDBSettings  # noqa: PLC0415

    runtime = await obtain_runtime(on_progress=on_progress)
    server: QuestDBServer = QuestDBServer(
        runtime, QuestDBSettings(folder=folder), lambda name, facts: log.tell("info", name, facts)
    )
    return server
