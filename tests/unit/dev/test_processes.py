"""Programs as processes of ours: waited for, mourned, healed, and ended with everything below them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentfarm.errors import Unavailable
from farmctl.dev.processes.keeper import HEALTHY_AFTER_S, RESTART_FIRST_S, RESTART_MAX_S, Keeper, next_start
from farmctl.dev.processes.process import Process, Program
from farmctl.dev.stop import Interrupted, StopWish
from tests.unit.dev.conftest import is_gone, until

Make = Callable[..., Program]
Kept = tuple[Keeper, list[str]]

SAY_READY = "print('ready', flush=True); import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"
WITH_CHILD = (
    "import subprocess, sys, signal\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "print('child', child.pid, flush=True)\n"
    "signal.pause()"
)


def says(word: str) -> Callable[[Process], bool]:
    return lambda process: word in process.output()


def test_start_returns_when_the_program_serves(program: Make, keeper: Kept) -> None:
    process = keeper[0].start(program(SAY_READY, is_ready=says("ready")), StopWish())
    assert process.is_running
    assert os.getsid(process.pid) == process.pid, "a Ctrl-C in our terminal would reach it"


def test_death_while_starting_is_reported_with_its_last_words(program: Make, keeper: Kept) -> None:
    broken = program("raise SystemExit('no such database')", is_ready=says("ready"))
    with pytest.raises(Unavailable, match=r"(?s)ended with status 1.*no such database"):
        keeper[0].start(broken, StopWish())


def test_a_program_that_never_serves_is_given_up_at_its_deadline(program: Make, keeper: Kept) -> None:
    mute = program("import signal; signal.pause()", is_ready=says("ready"), ready_within_s=0.1)
    with pytest.raises(Unavailable, match="not ready within"):
        keeper[0].start(mute, StopWish())


def test_waiting_ends_at_once_when_stopping_is_wished(program: Make, keeper: Kept) -> None:
    wish = StopWish()
    wish.wish()
    with pytest.raises(Interrupted):
        keeper[0].start(program(SAY_READY, is_ready=says("never")), wish)


def test_readiness_reads_only_what_this_run_wrote(program: Make, keeper: Kept) -> None:
    made = program(SAY_READY, is_ready=says("ready"))
    made.log.parent.mkdir()
    made.log.write_text("ready, said an earlier run\n")
    process = Process.start(made)
    until(lambda: process.output().strip(), "its own words")
    assert process.output() == "ready\n"
    process.kill_group()


def test_words_written_before_the_start_returns_are_read(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the program says all it will say before we go on."""
    made, popen = program(SAY_READY), subprocess.Popen

    def quick(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        child = popen(*words, **options)
        until(made.log.read_bytes, "its words")
        return child

    monkeypatch.setattr(subprocess, "Popen", quick)
    process = Process.start(made)
    assert process.output() == "ready\n"
    process.kill_group()


def test_what_was_killed_runs_again_and_the_death_is_reported(program: Make, keeper: Kept) -> None:
    programs, words = keeper
    first = programs.start(program(SAY_READY, is_ready=says("ready")), StopWish())
    os.kill(first.pid, signal.SIGKILL)

    def runs_again() -> bool:
        programs.look()
        return programs.processes[0].pid != first.pid and programs.processes[0].is_running

    until(runs_again, "the restart")
    assert programs.restarts == 1
    assert any("was killed by SIGKILL" in text for text in words)


def test_stop_kills_what_ignores_it_and_the_children_of_all(program: Make, keeper: Kept) -> None:
    programs, words = keeper
    wish = StopWish()
    stubborn = programs.start(program(STUBBORN, "stubborn", is_ready=says("ready"), stop_within_s=0.2), wish)
    parent = programs.start(program(WITH_CHILD, "parent", is_ready=says("child")), wish)
    child = int(parent.output().split()[1])
    programs.stop(["stubborn", "parent"], wish)
    assert not stubborn.is_running
    assert not parent.is_running
    until(lambda: is_gone(child), "the child's end")
    assert any("stubborn did not stop in time" in text for text in words)
    assert programs.names == []


def test_a_second_wish_shortens_the_deadline(program: Make, keeper: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, _ = keeper
    monkeypatch.setattr("farmctl.dev.processes.keeper.URGENT_STOP_S", 0.1)
    wish = StopWish()
    stubborn = programs.start(program(STUBBORN, is_ready=says("ready"), stop_within_s=3600), wish)
    wish.wish()
    threading.Timer(0.05, wish.wish).start()
    programs.stop([stubborn.name], wish)
    assert not stubborn.is_running


@pytest.mark.parametrize(
    ("lived_s", "deaths_before", "wait_s", "deaths"),
    [
        (0.1, 0, RESTART_FIRST_S, 1),
        (0.1, 1, RESTART_FIRST_S * 2, 2),
        (0.1, 30, RESTART_MAX_S, 31),
        (HEALTHY_AFTER_S, 7, 0.0, 0),
    ],
)
def test_wait_before_a_restart_grows_with_quick_deaths(
    lived_s: float, deaths_before: int, wait_s: float, deaths: int
) -> None:
    assert next_start(100.0, lived_s, deaths_before) == (100.0 + wait_s, deaths)


def test_the_first_signal_wakes_a_wait_and_the_second_is_urgent() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopWish() as wish:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            wish.pause(60)
        assert not wish.is_urgent
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: wish.is_urgent, "the second signal")
    assert signal.getsignal(signal.SIGINT) is before


def test_environment_is_laid_over_ours(program: Make, keeper: Kept) -> None:
    made = program("import os; print('ready', os.environ['FARM_TEST'])", environment={"FARM_TEST": "42"})
    process = Process.start(made)
    until(lambda: not process.is_running, "its end")
    assert process.output() == "ready 42\n"


def test_a_program_that_is_not_there_is_a_problem_in_words(tmp_path: Path, keeper: Kept) -> None:
    absent = Program("absent", (str(tmp_path / "absent"),), tmp_path / "log")
    with pytest.raises(Unavailable, match="cannot be started"):
        keeper[0].launch(absent)
