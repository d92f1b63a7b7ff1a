"""What a killed farm left behind is ended; a process that only has its number is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from farmctl.dev.processes.records import Record, end_descendants, end_leftovers, find, write_down
from tests.unit.dev.conftest import is_gone, until

SLEEPER = (sys.executable, "-c", "import signal; print(1, flush=True); signal.pause()")

ADOPTING = """
import subprocess, sys
from farmctl.dev.processes.records import adopt_orphans, end_descendants
adopt_orphans()
middle = '''
import subprocess, sys
sleep = [sys.executable, "-c", "import signal; signal.pause()"]
print(subprocess.Popen(sleep, stdout=subprocess.DEVNULL, start_new_session=True).pid)
'''
orphan = int(subprocess.check_output([sys.executable, "-c", middle]))
print(orphan, len(end_descendants(())))
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()  # its command line is that of the program, not ours, from here on
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def record_of(child: subprocess.Popen[bytes], *, is_root: bool = True) -> Record:
    process = psutil.Process(child.pid)
    return Record(child.pid, process.create_time(), tuple(process.cmdline()), is_root)


def save(path: Path, *records: Record) -> None:
    path.write_text(json.dumps([asdict(record) for record in records]))


def test_recorded_process_is_ended(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path, words = tmp_path / "processes.json", list[str]()
    save(path, record_of(sleeper))
    assert end_leftovers(path, words.append) == 1
    assert is_gone(sleeper.pid)
    assert "left 1 process" in words[0]
    assert not path.exists()


@pytest.mark.parametrize(
    "change", [{"started_at": 1.0}, {"command": ("postgres",)}], ids=["another start time", "another command"]
)
def test_process_that_only_has_the_number_is_left_alone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "processes.json"
    save(path, replace(record_of(sleeper), **change))  # type: ignore[arg-type]
    assert end_leftovers(path, print) == 0
    assert sleeper.poll() is None


def test_damaged_and_absent_records_end_nothing(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    assert end_leftovers(path, print) == 0
    path.write_text('[{"pid": 1}, 7, {"pid": "x", "started_at"')
    assert end_leftovers(path, print) == 0
    path.write_text('[{"pid": 1}, 7, null]')
    assert end_leftovers(path, print) == 0


def test_written_down_is_every_descendant(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    write_down(path, [sleeper.pid])
    records = {entry["pid"]: entry for entry in json.loads(path.read_text())}
    assert records[sleeper.pid]["is_root"]
    assert tuple(records[sleeper.pid]["command"]) == SLEEPER


def test_a_dead_process_is_not_found(sleeper: subprocess.Popen[bytes]) -> None:
    record = record_of(sleeper)
    assert find(record) is not None
    sleeper.kill()
    until(lambda: is_gone(sleeper.pid), "its end")
    assert find(record) is None


def test_an_orphan_comes_to_us_and_is_ended() -> None:
    """In a program of its own: the kernel's setting stays with a process for good."""
    answer = subprocess.run([sys.executable, "-c", ADOPTING], capture_output=True, text=True, check=True, timeout=60)
    orphan, count = answer.stdout.split()
    assert count == "1"
    assert is_gone(int(orphan))


def test_nothing_below_us_means_nothing_to_end() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from farmctl.dev.processes.records import end_descendants as e; print(e(()))"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"
    assert callable(end_descendants)
