"""Locks, whole writes, damaged files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentfarm.errors import Conflict
from agentfarm.files import SET_ASIDE_MAX, FileLock, Locked, read_or_set_aside, set_aside, write_file, write_private


def test_lock_says_who_holds_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(Locked) as caught:
        FileLock(tmp_path / "lock")
    assert caught.value.holder == str(os.getpid())
    assert isinstance(caught.value, Conflict)
    lock.release()


def test_lock_is_free_after_its_release_which_is_safe_twice(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.release()
    lock.release()
    with FileLock(tmp_path / "lock"):
        pass
    FileLock(tmp_path / "lock").release()


def test_lock_ends_with_its_process_and_is_not_handed_to_programs(tmp_path: Path) -> None:
    """The program that the holder started lives on, and holds nothing."""
    code = (
        "import subprocess, sys; from pathlib import Path; from agentfarm.files import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]))\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True, check=True
    )
    try:
        FileLock(tmp_path / "lock").release()
    finally:
        os.kill(int(ended.stdout), 9)


def test_waiting_lock_waits_for_the_holder(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    code = (
        "import sys; from pathlib import Path; from agentfarm.files import FileLock\n"
        "print('waiting', flush=True); FileLock(Path(sys.argv[1]), is_waiting=True); print('taken', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        lock.release()
        assert child.stdout.readline() == "taken\n"


def test_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    for is_durable in (True, False):
        write_file(path, b"old, and much longer", is_durable=is_durable)
        write_file(path, b"new", is_durable=is_durable)
        assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.json"]


def test_private_file_is_its_owners_alone_also_where_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "in_it").touch()
    with pytest.raises(OSError, match="folder"):
        write_file(path, b"a folder cannot be replaced by a file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_damaged_file_is_set_aside_and_reads_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    complaints: list[tuple[Path, Exception]] = []

    def read() -> object:
        return read_or_set_aside(path, json.loads, on_damage=lambda aside, problem: complaints.append((aside, problem)))

    assert read() is None
    path.write_text('{"a": 1}')
    assert read() == {"a": 1}
    path.write_text('{"a": ')
    assert read() is None
    assert not path.exists()
    ((aside, problem),) = complaints
    assert aside.read_text() == '{"a": '
    assert isinstance(problem, ValueError)


def test_few_damaged_files_are_kept_and_they_are_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for year in range(1990, 1996):
        (tmp_path / f"outbox.db.damaged-{year}0101-000000").touch()
    path.write_text("damaged today")
    newest = set_aside(path)
    left = sorted(tmp_path.iterdir())
    assert len(left) == SET_ASIDE_MAX
    assert left[-1] == newest
    assert newest.read_text() == "damaged today"


def test_files_and_backoff_need_little() -> None:
    """The daemon and every agent's process import them."""
    code = (
        "import sys; before = set(sys.modules); import agentfarm.files, agentfarm.backoff\n"
        "print([name for name in ('asyncio', 'cryptography', 'ssl', 'json', 'tempfile', 'secrets', 'logging')"
        " if name in set(sys.modules) - before])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
