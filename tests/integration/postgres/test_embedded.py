"""The embedded server: made, found again, healed when killed, stopped, and refused with clear words."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from agentfarm.errors import Conflict, InvalidRequest, Unavailable
from agentfarm.service import Service
from controller.core.model import Limits
from controller.core.transition import Changes
from controller.journal.journal import Journal
from controller.journal.migrations.migrate import migrate
from controller.postgres import EmbeddedPostgres, ExternalPostgres
from controller.postgres import cluster as on_disk
from tests.integration.journal.contract import new_task, registered
from tests.integration.journal.histories import Clock
from tests.service_contract import ServiceContract

FAST = {"fsync": "off", "shared_buffers": "16MB"}
DEADLINE_S = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path, which is barred to others and long: those have tests of their own."""
    with tempfile.TemporaryDirectory(prefix="agentfarm-test-embedded-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "postgres"


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A cluster as initdb leaves it. Making one costs more than most tests, so those about other things copy it."""
    with tempfile.TemporaryDirectory(prefix="agentfarm-test-embedded-") as name:
        Path(name).chmod(0o755)
        yield on_disk.prepare(Path(name) / "postgres", FAST, lambda _: None).data


@pytest.fixture
def filled(folder: Path, made: Path) -> Path:
    """`folder` with a cluster in it, as an earlier start left it."""
    folder.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", made, folder / "data"], check=True)  # with its owner
    return folder


class TestLife(ServiceContract):
    @pytest.fixture
    def service(self, filled: Path) -> Service:
        return EmbeddedPostgres(filled, settings=FAST)


@pytest.fixture
async def server(filled: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    yield server
    await server.stop()


def ask(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


async def kill(server: EmbeddedPostgres) -> None:
    """SIGKILL to the postmaster; returns when the supervisor has seen it."""
    assert server.pid is not None
    server.died.clear()
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_S):
        await server.died.wait()


def alive_on(server: EmbeddedPostgres) -> list[int]:
    return [process.pid for process in on_disk.servers_on(server.cluster)]


# ------------------------------------------------------------------ start and stop


async def test_data_survives_stop_and_start_and_no_process_does(folder: Path) -> None:
    words: list[str] = []
    server = EmbeddedPostgres(folder, settings=FAST, progress=words.append)
    await server.start()
    assert any("new database" in word for word in words)
    ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    await server.stop()
    assert alive_on(server) == []
    assert not (folder / "data" / "postmaster.pid").exists()
    again = EmbeddedPostgres(folder, settings=FAST, progress=words.append)
    await again.start()
    assert again.dsn == server.dsn
    assert ask(again.dsn, "SELECT n FROM kept") == [(42,)]
    assert sum("new database" in word for word in words) == 1
    await again.stop()


async def test_stopping_twice_and_unstarted_is_safe(filled: Path) -> None:
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.stop()
    await server.start()
    await server.start()
    await server.stop()
    await server.stop()


async def test_only_a_private_unix_socket_listens(server: EmbeddedPostgres) -> None:
    assert ask(server.dsn, "SHOW listen_addresses") == [("",)]
    assert stat.S_IMODE(server.cluster.socket_folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.cluster.folder / "data").stat().st_mode) == 0o700
    assert server.pid is not None
    assert psutil.Process(server.pid).net_connections("inet") == []


async def test_commits_are_durable_by_default(filled: Path) -> None:
    server = EmbeddedPostgres(filled)
    await server.start()
    try:
        durable = "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('jit')"
        assert ask(server.dsn, durable) == [("on", "on", "off")]
    finally:
        await server.stop()


async def test_stop_does_not_wait_for_open_sessions(filled: Path) -> None:
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    with closing(psycopg2.connect(server.dsn)) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1")
        async with asyncio.timeout(DEADLINE_S):
            await server.stop()
    assert alive_on(server) == []


async def test_server_that_hangs_is_ended_at_the_deadline(filled: Path) -> None:
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    async with asyncio.timeout(DEADLINE_S):
        await server.stop(deadline_s=0.2)
    assert alive_on(server) == []


# ------------------------------------------------------------------ healing


async def test_killed_postmaster_is_replaced_and_nothing_acknowledged_is_lost(server: EmbeddedPostgres) -> None:
    await asyncio.to_thread(migrate, server.dsn)
    clock = Clock()
    journal = Journal(server.dsn, clock=clock)
    epoch = journal.take_lead()
    journal.load(Limits(), clock())
    journal.commit(registered(), epoch)
    stored: list[int] = []
    half = threading.Event()

    def write() -> None:
        with suppress(Unavailable):
            for number in range(1, 100_000):
                journal.commit(Changes(inserted_tasks=[new_task(number)]), epoch)
                stored.append(number)
                if number == 50:
                    half.set()

    writer = threading.Thread(target=write)
    writer.start()
    await asyncio.to_thread(half.wait, DEADLINE_S)
    await kill(server)
    await server.wait_ready(DEADLINE_S)
    await asyncio.to_thread(writer.join, DEADLINE_S)
    assert not writer.is_alive()
    with suppress(Unavailable):
        journal.take_lead()  # finds that the session holding the lock is gone
    epoch = journal.take_lead()
    rows = set(journal.load(Limits(), clock()).tasks)
    assert rows >= set(stored)
    assert len(rows - set(stored)) <= 1, "at most the one commit of unknown fate"
    journal.commit(Changes(inserted_tasks=[new_task(200_000)]), epoch)
    journal.close()
    assert server.restarts == 1


async def test_backends_that_outlive_their_postmaster_do_not_hinder_the_next(server: EmbeddedPostgres) -> None:
    """A busy backend does not look whether its postmaster lives, and holds the shared memory."""
    with closing(psycopg2.connect(server.dsn)) as session:
        backend = session.info.backend_pid
        running = threading.Thread(target=_run, args=(session, "SELECT sum(n) FROM generate_series(1, 1e10::bigint) n"))
        running.start()
        active = f"SELECT 1 FROM pg_stat_activity WHERE pid = {backend} AND state = 'active'"
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(ask, server.dsn, active):
                pass
        await kill(server)
        await server.wait_ready(DEADLINE_S)
        assert backend not in alive_on(server)
        await asyncio.to_thread(running.join, DEADLINE_S)


def _run(session: psycopg2.extensions.connection, statement: str) -> None:
    with suppress(psycopg2.Error), session.cursor() as cursor:
        cursor.execute(statement)


async def test_server_killed_again_and_again_comes_back(server: EmbeddedPostgres) -> None:
    for _ in range(3):
        await kill(server)
        await server.wait_ready(DEADLINE_S)
    assert server.restarts == 3


async def test_stopping_in_the_middle_of_a_restart_leaves_nothing(filled: Path) -> None:
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    await kill(server)
    await server.stop()
    assert alive_on(server) == []


# ------------------------------------------------------------------ what an earlier controller left

LEAVE = """
import asyncio, os, signal, sys
from pathlib import Path
from controller.postgres import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off", "shared_buffers": "16MB"})
    await server.start()
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def left_running(folder: Path) -> int:
    """A controller starts a server and is killed. Returns the server's pid."""
    done = subprocess.run([sys.executable, "-c", LEAVE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return int(done.stdout.split()[-1])


async def test_server_of_a_killed_controller_is_adopted_healed_and_stopped(filled: Path) -> None:
    pid = await asyncio.to_thread(left_running, filled)
    assert psutil.pid_exists(pid)
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    assert server.pid == pid
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    await kill(server)
    await server.wait_ready(DEADLINE_S)
    assert server.pid != pid
    await server.stop()
    assert alive_on(server) == []


async def test_stale_pid_file_of_a_foreign_process_does_not_hinder_the_start(filled: Path) -> None:
    """After a power cut the pid in the file may be anyone's: here it is ours."""
    server = EmbeddedPostgres(filled, settings=FAST)
    await server.start()
    whole = (filled / "data" / "postmaster.pid").read_text().splitlines()
    await server.stop()
    whole[0] = str(os.getpid())
    (filled / "data" / "postmaster.pid").write_text("\n".join(whole) + "\n")
    await server.start()
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    await server.stop()


async def test_data_folder_cut_short_at_its_making_is_made_again(folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    server = EmbeddedPostgres(folder, settings=FAST)
    await server.start()
    assert not (folder / "data.new").exists()
    await server.stop()


# ------------------------------------------------------------------ refusals


async def test_second_supervisor_of_a_folder_is_refused(server: EmbeddedPostgres, folder: Path) -> None:
    second = EmbeddedPostgres(folder, settings=FAST)
    with pytest.raises(Conflict, match=f"process {os.getpid()}"):
        await second.start()
    await second.stop()
    assert ask(server.dsn, "SELECT 1") == [(1,)], "being refused must not hurt the first"


async def test_data_of_another_version_is_refused_and_untouched(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("16\n")
    server = EmbeddedPostgres(folder, settings=FAST)
    with pytest.raises(Unavailable, match="made by PostgreSQL 16"):
        await server.start()
    assert (folder / "data" / "PG_VERSION").read_text() == "16\n"


async def test_server_that_cannot_start_says_why(filled: Path) -> None:
    server = EmbeddedPostgres(filled, settings={**FAST, "shared_buffers": "-5"})
    with pytest.raises(Unavailable, match="shared_buffers"):
        await server.start()
    assert alive_on(server) == []
    fixed = EmbeddedPostgres(filled, settings=FAST)
    await fixed.start()
    await fixed.stop()


async def test_file_in_place_of_the_folder_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "postgres").write_text("not a folder")
    with pytest.raises(Unavailable, match="postgres"):
        await EmbeddedPostgres(tmp_path / "postgres", settings=FAST).start()


# ------------------------------------------------------------------ awkward folders


async def test_path_too_long_for_a_socket_works(folder: Path) -> None:
    long = folder / ("deep-" * 12) / ("er" * 40)
    server = EmbeddedPostgres(long, settings=FAST)
    await server.start()
    try:
        assert ask(server.dsn, "SELECT 1") == [(1,)]
        assert len(str(server.cluster.socket_folder)) < 90
        assert stat.S_IMODE(server.cluster.socket_folder.stat().st_mode) == 0o700
    finally:
        await server.stop()
    assert not server.cluster.socket_folder.exists(), "a folder outside of ours is not left behind"


async def test_path_with_spaces_quotes_and_umlauts_works(folder: Path) -> None:
    server = EmbeddedPostgres(folder / 'o\'neill, "ü" %41', settings=FAST)
    await server.start()
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    await server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server under another account")
async def test_root_runs_it_unprivileged_behind_a_barred_folder(tmp_path: Path) -> None:
    barred = tmp_path / "home"
    barred.mkdir(mode=0o700)
    words: list[str] = []
    server = EmbeddedPostgres(barred / "farm" / "postgres", settings=FAST, progress=words.append)
    await server.start()
    assert server.pid is not None
    assert psutil.Process(server.pid).uids().effective != 0
    assert any(str(barred) in word for word in words), "opening a way is reported"
    assert not barred.stat().st_mode & stat.S_IROTH, "passing is allowed, reading is not"
    await server.stop()
    again = EmbeddedPostgres(barred / "farm" / "postgres", settings=FAST, progress=words.append)
    before = len(words)
    await again.start()
    assert not any(str(barred) in word for word in words[before:]), "the way is still open"
    await again.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root copies the programs for another account")
async def test_programs_another_account_cannot_reach_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under /root/project/.venv: the whole package lies behind a barred folder."""
    package = on_disk._installation().parent
    hidden = folder.parent / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / package.name).symlink_to(package)
    (hidden / f"{package.name}.libs").symlink_to(package.parent / f"{package.name}.libs")
    monkeypatch.setattr(on_disk, "_installation", lambda: hidden / package.name / "pginstall18")
    server = EmbeddedPostgres(folder, settings=FAST)
    await server.start()
    assert str(folder) in psutil.Process(server.pid).exe()
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    await server.stop()


# ------------------------------------------------------------------ someone else's server


async def test_external_server_is_used_and_left_alone(database_url: str) -> None:
    server = ExternalPostgres(database_url)
    await server.start()
    await server.wait_ready(DEADLINE_S)
    await server.stop()
    assert ask(server.dsn, "SELECT 1") == [(1,)]


async def test_external_server_that_is_away_is_unavailable_with_its_words(tmp_path: Path) -> None:
    server = ExternalPostgres(f"postgresql://farm:s3cret@/farm?host={tmp_path}")
    await server.start()
    with pytest.raises(Unavailable, match="does not answer") as problem:
        await server.wait_ready(0.1)
    assert "s3cret" not in str(problem.value)


def test_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="postgresql://"):
        ExternalPostgres("mysql://x")
