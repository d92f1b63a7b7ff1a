"""Processes that are kept: started, found, awaited, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agentfarm.process import Child, read_program, signal_name, start_ticks

GIVE_UP_S = 60.0
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True); time.sleep(600)\n"
)
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)\n"
)


async def line_of(log: Path) -> str:
    async with asyncio.timeout(GIVE_UP_S):
        while not log.exists() or "\n" not in log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    return log.read_text().splitlines()[0]


async def test_exit_code_and_output_are_there_when_it_has_ended(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", "print('here'); raise SystemExit(3)"], tmp_path / "logs" / "log")
    async with asyncio.timeout(GIVE_UP_S):
        await child.gone()
    assert child.exited.result() == 3
    assert (tmp_path / "logs" / "log").read_text() == "here\n"


async def test_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", "import os; print(os.getsid(0))"], tmp_path / "log")
    async with asyncio.timeout(GIVE_UP_S):
        await child.gone()
    assert int((tmp_path / "log").read_text()) == child.pid != os.getsid(0)


async def test_it_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"], tmp_path / "log")
    await line_of(tmp_path / "log")
    assert await child.end(GIVE_UP_S)
    assert child.exited.result() == -signal.SIGTERM


async def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", DEAF], tmp_path / "log")
    assert await line_of(tmp_path / "log") == "deaf"
    assert not await child.end(0.0)
    assert child.exited.result() == -signal.SIGKILL


async def test_what_it_started_is_killed_with_it(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", f"import signal; signal.signal(15, signal.SIG_IGN)\n{PARENT}"],
                        tmp_path / "log")  # fmt: skip
    below = Child(int(await line_of(tmp_path / "log")))
    await child.end(0.0)
    async with asyncio.timeout(GIVE_UP_S):
        await below.gone()


async def test_it_is_found_again_by_its_mark_alone(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)  # the mark"],
                        tmp_path / "log")  # fmt: skip
    await line_of(tmp_path / "log")
    assert Child.find(child.pid, "another mark") is None
    again = Child.find(child.pid, "the mark")
    assert again is not None
    await child.end(GIVE_UP_S)
    async with asyncio.timeout(GIVE_UP_S):
        await again.gone()
    assert again.exited.result() is None
    assert Child.find(child.pid, "the mark") is None


async def test_detached_child_lives_on(tmp_path: Path) -> None:
    child = Child.start([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"], tmp_path / "log")
    await line_of(tmp_path / "log")
    child.detach()
    child.detach()
    assert start_ticks(child.pid) > 0
    again = Child(child.pid)
    await again.end(GIVE_UP_S)


async def test_nothing_is_watched_where_nothing_runs() -> None:
    with pytest.raises(ProcessLookupError):
        Child(2**22 - 1)
    assert start_ticks(2**22 - 1) == 0


def test_signals_have_names() -> None:
    assert (signal_name(9), signal_name(250)) == ("SIGKILL", "signal 250")


@pytest.mark.parametrize("patience_s", [0.0, GIVE_UP_S])
async def test_a_program_that_is_read_is_ended_with_what_it_started(patience_s: float) -> None:
    command = [sys.executable, "-c", PARENT]
    async with asyncio.timeout(GIVE_UP_S):
        async with read_program(command, errors=asyncio.subprocess.DEVNULL, patience_s=patience_s) as (program, output):
            below = Child(int(await output.readline()))
            assert os.getsid(program.pid) == program.pid
        assert program.returncode == (-signal.SIGTERM if patience_s else -signal.SIGKILL)
        await below.gone()


async def test_a_program_that_is_read_and_deaf_is_killed() -> None:
    async with asyncio.timeout(GIVE_UP_S):
        async with read_program([sys.executable, "-c", DEAF], errors=asyncio.subprocess.DEVNULL, patience_s=0.01) as (
            program,
            output,
        ):
            assert await output.readline() == b"deaf\n"
        assert program.returncode == -signal.SIGKILL


async def test_a_program_that_ended_by_itself_is_left_alone() -> None:
    async with asyncio.timeout(GIVE_UP_S):
        async with read_program(
            [sys.executable, "-c", "print('here'); raise SystemExit(3)"], errors=asyncio.subprocess.DEVNULL
        ) as (program, output):
            assert await output.read() == b"here\n"
            assert await program.wait() == 3
