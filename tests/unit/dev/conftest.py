"""Small programs that stand in for the farm's, so that the running of processes is tested by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from farmctl.dev.processes.keeper import Keeper
from farmctl.dev.processes.process import Program
from farmctl.dev.stop import StopWish

DEADLINE_S = 60.0


def until(is_so: Callable[[], object], what: str) -> None:
    """Poll; the tests' only way to wait."""
    deadline = time.monotonic() + DEADLINE_S
    pause = StopWish()
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        pause.pause(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    """Makes a Program that runs Python text."""

    def make(text: str, name: str = "standin", **more: object) -> Program:
        return Program(name, (sys.executable, "-c", text), tmp_path / "logs" / f"{name}.log", **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def keeper() -> Iterator[tuple[Keeper, list[str]]]:
    """A keeper whose words are kept, and whose programs end with the test."""
    words: list[str] = []
    made = Keeper(words.append)
    yield made, words
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill_group()
