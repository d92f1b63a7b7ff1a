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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agentfarm.backoff import Backoff
from agentfarm.errors import FarmError
from agentfarm.files import write_file
from agentfarm.process import Child
from agentfarm.service import first_of
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder
from nodeagent.replicas.logs import last_lines
from nodeagent.runner.replica.output_log import rotate
from nodeagent.services.market.products import AssignedProducts
from nodeagent.services.market.settings import MarketSettings

if TYPE_CHECKING:
    from nodeagent.market.store.runtime import DownloadProgress
    from nodeagent.market.store.server import QuestDB, QuestDBServer

DEFAULT_SOURCE: Final = "coinbase-advanced"
RECORDED: Final = "capture"
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
FEED_RETRY_MIN_S: Final = 2.0
FEED_STOP_S: Final = 12.0
FEED_LOG_BYTES_MAX: Final = 8 * 2**20
UNCONNECTED_MAX_S: Final = 15.0
STALE_AFTER_S: Final = 10.0
"""A status file not rewritten for this long is no news."""
FEED_UNUSABLE: Final = 5
FAILED_CHARS_MAX: Final = 300
LOOK_AGAIN_S: Final = 0.1
"""Between two looks whether a feed that was just started has said its first word."""
DISK_FULL_BYTES: Final = 16 * 2**20
"""With less, what goes wrong goes wrong for want of room."""


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """What the heartbeat says of it."""

    state: str = ""
    rows: int = 0
    lag_ms: int = 0
    feed: Mapping[str, Any] | None = None
    """The feed's own status."""


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
        self._reader = _StatusReader(folder / "feed" / "status.json")
        self._rows_before = 0
        self._unconnected_since: float | None = None
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
        """The controller's products beside our own: a whole list. Remembered, and told to the feed."""
        if self._assigned is not None and self._assigned.take(products):
            log.info("market.assigned", products=list(self._assigned.products))
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                await self._bring_up(self._settings)
                backoff.reset()
                await self._keep_feeding(self._settings)
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
        said = self._reader.read() if self._feed is not None else None  # an earlier feed's words are no news
        if self._failed or said is None:
            return MarketStatus(self._failed or self._doing, self._rows_before)
        rows = self._rows_before + int(said.get("rows_stored", 0))
        state = _disk_words(said) or self._state(self._settings, said)
        return MarketStatus(state, rows, max(0, int(said.get("lag_ms", 0))), said)

    def _state(self, settings: MarketSettings, said: Mapping[str, Any]) -> str:
        now = time.monotonic()
        if said.get("state") == "idle":
            return "idle"  # it has no products
        if said.get("is_connected"):
            self._unconnected_since = None
            return market_kind(settings)
        if said.get("state") == "over":
            return f"{market_kind(settings)}: the recording is over"
        self._unconnected_since = self._unconnected_since or now
        if now - self._unconnected_since < UNCONNECTED_MAX_S:
            return market_kind(settings) if said.get("connects") else "starting"
        return "failed: the feed is not connected to its venue"

    # -------------------------------------------------------------- QuestDB

    async def _bring_up(self, settings: MarketSettings) -> None:
        """Raises FarmError, saying what is missing."""
        folder = self._folder / "questdb"
        folder.mkdir(parents=True, exist_ok=True)
        server = self._server = await _make_server(settings, folder, self._fetching)
        self._doing = "starting"
        endpoint = await server.start()
        self._failed = ""
        self.products = settings.products
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

    async def _keep_feeding(self, settings: MarketSettings) -> None:
        """Keep the feed running while QuestDB is; a feed that cannot be used is tried again ever less often."""
        backoff = Backoff(FEED_RETRY_MIN_S, RETRY_MAX_S)
        while True:
            began = time.monotonic()
            try:
                feed = self._feed = self._find_or_start(settings)
            except OSError as problem:  # a full disk, say: QuestDB is left as it is
                self._fail(str(problem))
                await asyncio.sleep(backoff.next_s())
                continue
            self._failed = ""
            code = await self._until_exited(settings, feed)
            if self._feed is not feed:
                await asyncio.Event().wait()  # stopped, by us; so are we, in a moment
            said = self._reader.read() or {}
            self._rows_before += int(said.get("rows_stored", 0))
            self._reader.forget()
            lasted_s = time.monotonic() - began
            if lasted_s > RETRY_MAX_S:
                backoff.reset()
            wait_s = backoff.next_s()
            words = (last_lines(self._feed_log, 1) or [""])[0]
            log.warning("market.feed_ended", code=code, said=words[:FAILED_CHARS_MAX], again_in_s=round(wait_s, 1))
            if code == FEED_UNUSABLE or lasted_s < max(wait_s, FEED_RETRY_MIN_S):
                self._fail(words or f"the feed ended with code {code}")
            await asyncio.sleep(wait_s)

    async def _until_exited(self, settings: MarketSettings, feed: Child) -> int | None:
        """Tell it of changed products as long as it lives. Returns its exit code."""
        while True:
            try:
                await first_of(feed.gone(), self._changed.wait())
                if feed.exited.done():
                    return feed.exited.result()
                self._changed.clear()
                _write_config(self._config, feed_settings(settings, self._folder, self.served))
                while self._reader.pid() != feed.pid and not feed.exited.done():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(LOOK_AGAIN_S)  # one that does not listen yet would die of the signal
                feed.signal(signal.SIGHUP)
            except OSError as problem:  # a full disk: the feed goes on with what it was told
                log.warning("market.feed_not_told", problem=str(problem))
                await asyncio.sleep(RETRY_MIN_S)
                self._changed.set()

    @property
    def _config(self) -> Path:
        return self._folder / "feed" / "settings.json"

    @property
    def _feed_log(self) -> Path:
        return self._folder / "feed" / "log"

    def _find_or_start(self, settings: MarketSettings) -> Child:
        folder = self._folder / "feed"
        folder.mkdir(parents=True, exist_ok=True)
        config, wanted = self._config, feed_settings(settings, self._folder, self.served)
        self._changed.clear()
        found = self._reader.pid()
        child = Child.find(found, str(config)) if found else None
        told = _read_config(config)
        if child is not None and told == wanted:
            log.info("market.feed_found", pid=child.pid)
            return child
        _write_config(config, wanted)
        if child is not None and {**told, "products": wanted["products"]} == wanted:
            log.info("market.feed_found", pid=child.pid)
            child.signal(signal.SIGHUP)
            return child
        if child is not None:  # it was told something else
            child.signal(signal.SIGKILL)
        self._reader.forget()
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


def _disk_words(said: Mapping[str, Any]) -> str:
    """What the feed says of a disk that is low or full, which comes before all else; empty while there is room."""
    disk = said.get("disk", "ok")
    if disk == "ok":
        return ""
    words = [text for text in said.get("problems", ()) if text.startswith("the disk is ")]
    return f"{'failed' if disk == 'full' else 'degraded'}: {words[0] if words else f'the disk is {disk}'}"


def market_kind(settings: MarketSettings) -> str:
    """live, simulated or capture: as the settings say, or by whether the venue is on this machine."""
    if settings.kind:
        return settings.kind
    if settings.feed.get("source") == RECORDED:
        return "capture"
    host = urlsplit(str(settings.feed.get("ws_url", ""))).hostname
    return "simulated" if host in ("127.0.0.1", "localhost", "::1") else "live"


def feed_settings(settings: MarketSettings, folder: Path, products: Iterable[str]) -> dict[str, Any]:
    """What the feed process is told: `nodeagent.market.feed.settings.FeedSettings`, as JSON."""
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
    """What the feed was told; nothing when that is not to be had."""
    try:
        told = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _write_config(config: Path, told: Mapping[str, Any]) -> None:
    """Replace the file atomically, unless it says so already: a full disk must not keep a feed from starting."""
    if _read_config(config) != told:
        write_file(config, json.dumps(told, indent=1).encode(), is_durable=False)


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


class _StatusReader:
    """The feed's status file, parsed only when it was rewritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = 0
        self._said: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        """The newest status; None when there is none worth believing."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._said = json.loads(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError):
            self._said = None
        if self._said is not None and time.time_ns() - self._stamp > STALE_AFTER_S * 1e9:
            return {**self._said, "is_connected": False, "is_stale": True}
        return self._said

    def pid(self) -> int | None:
        """The process that wrote it, if it may still live."""
        said = self.read()
        pid = int(said.get("pid", 0)) if said else 0
        return pid if pid and os.path.exists(f"/proc/{pid}") else None

    def forget(self) -> None:
        """The process that wrote it is gone: its words are no news any more."""
        self._path.unlink(missing_ok=True)
        self._said, self._stamp = None, 0
