"""How our QuestDB is configured, as words: pure, so that tests compare words.

Sized for a machine with 4 GB that does other work. Every key is given as `QDB_…` in the environment of the server, so
that the files in its folder stay the vendor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeagent.market.store.endpoint import ADMIN_USER, READER_USER, Passwords
from nodeagent.market.store.runtime import Runtime

LOOPBACK: Final = "127.0.0.1"
GIB: Final = 1024**3


_QUICK_SLEEP: Final = {
    f"{pool}.worker.{stage}.threshold": turns
    for pool in ("shared", "mat.view.refresh", "pg", "http.min", "export", "view.compiler")
    for stage, turns in (("yield", "10"), ("nap", "100"), ("sleep", "1000"))
}
"""An idle worker spins a little, naps, then sleeps. The vendor lets it spin a hundred times longer, in more pools: at
five small batches a second that cost 44 % of a core, this costs 18 %, and rows are visible as soon."""


@dataclass(frozen=True, slots=True)
class QuestDBSettings:
    """What a node may change about its server."""

    folder: Path
    """Holds the server's root, its passwords, its log and what the supervisor remembers."""
    heap_mib: int = 192
    workers: int = 2
    """Threads that take rows, apply them and refresh views."""
    reader_workers: int = 2
    """Threads of their own for agents' queries, so that a slow one never holds up rows."""
    ram_limit_percent: int = 50
    commit_mode: str = "nosync"
    """`nosync`: rows survive any crash of processes; after a power cut the feed replays the last minutes of its
    capture."""
    ready_within_s: float = 60.0
    stop_within_s: float = 20.0
    restart_backoff_s: float = 0.5
    restart_backoff_max_s: float = 30.0
    check_every_s: float = 5.0
    disk_low_bytes: int = 2 * GIB
    """Below this, or `disk_low_share`, whichever is less, optional data should stop."""
    disk_low_share: float = 0.20
    disk_full_bytes: int = GIB // 4
    """Below this nothing but trades should be written."""
    log_max_bytes: int = 8 * 1024 * 1024
    log_files: int = 3

    @property
    def root(self) -> Path:
        """QuestDB's own folder (its `-d`)."""
        return self.folder / "root"


@dataclass(frozen=True, slots=True)
class Ports:
    """The three loopback ports of one server."""

    http: int
    pg: int
    health: int


def server_command(runtime: Runtime, settings: QuestDBSettings) -> list[str]:
    """The command line. Source: QuestDB's own start script, less what a small machine cannot afford."""
    native = ["--enable-native-access=ALL-UNNAMED"] if runtime.java.major >= 17 else []
    unsafe = ["--sun-misc-unsafe-memory-access=allow"] if runtime.java.major >= 24 else []
    return [
        str(runtime.java.path),
        *native,
        *unsafe,
        f"-Xmx{settings.heap_mib}m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={settings.folder / 'log' / 'jvm-crash.log'}",
        "-p",
        str(runtime.jar),
        "-m",
        "io.questdb/io.questdb.ServerMain",
        "-d",
        str(settings.root),
    ]


def server_environment(settings: QuestDBSettings, ports: Ports, passwords: Passwords) -> dict[str, str]:
    """The `QDB_…` variables: loopback only, two users, no telemetry, small pages and pools, tables only by
    migration."""
    keys = {
        "http.net.bind.to": f"{LOOPBACK}:{ports.http}",
        "http.user": ADMIN_USER,
        "http.password": passwords.admin,
        "http.net.connection.limit": "64",
        "http.receive.buffer.size": "256k",
        "http.send.buffer.size": "256k",
        "http.min.net.bind.to": f"{LOOPBACK}:{ports.health}",
        "http.min.worker.count": "1",
        "http.health.check.authentication.required": "false",
        "pg.net.bind.to": f"{LOOPBACK}:{ports.pg}",
        "pg.user": ADMIN_USER,
        "pg.password": passwords.admin,
        "pg.readonly.user.enabled": "true",
        "pg.readonly.user": READER_USER,
        "pg.readonly.password": passwords.reader,
        "line.tcp.enabled": "false",
        "line.auto.create.new.tables": "false",
        "line.auto.create.new.columns": "false",
        "metrics.enabled": "true",
        "telemetry.enabled": "false",
        "log.w.stdout.level": "ADVISORY,ERROR,CRITICAL",
        "config.reload.enabled": "false",
        "ram.usage.limit.percent": str(settings.ram_limit_percent),
        "shared.worker.count": str(settings.workers),
        "wal.apply.worker.count": "0",
        "mat.view.refresh.worker.count": "1",
        "pg.worker.count": str(settings.reader_workers),
        **_QUICK_SLEEP,
        "cairo.commit.mode": settings.commit_mode,
        "cairo.writer.data.append.page.size": "1m",
        "cairo.wal.writer.data.append.page.size": "256k",
        "cairo.o3.column.memory.size": "128k",
    }
    return {f"QDB_{key.upper().replace('.', '_')}": value for key, value in keys.items()}
