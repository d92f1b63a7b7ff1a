"""A controller's start: what it may import before nodes are served, and what it tells of itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentfarm.process import age_s
from controller.start import Late, StartTimes

ROOT = Path(__file__).parents[2]


def modules_after(code: str) -> set[str]:
    """The top-level names a fresh process has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(done.stdout.split())


def test_nodes_are_served_without_what_only_the_gateway_needs() -> None:
    late = {"alembic", "sqlalchemy", "fastapi", "starlette", "pydantic", "uvicorn"}
    assert not late & modules_after("import controller.service")


def test_plain_submits_are_served_without_what_only_other_calls_need() -> None:
    late = {"alembic", "sqlalchemy", "fastapi", "pydantic"}
    assert not late & modules_after("import controller.gateway.server")


def test_gateway_is_served_without_what_only_history_needs() -> None:
    assert not {"alembic", "sqlalchemy"} & modules_after("import controller.gateway.server, controller.gateway.app")


def test_age_counts_from_the_beginning_of_the_process() -> None:
    code = "import time; time.sleep(0.3); from agentfarm.process import age_s; print(age_s())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0.3 <= float(done.stdout) < age_s()


def test_steps_and_moments_are_logged_in_milliseconds() -> None:
    now = [1.0]
    times = StartTimes(age=lambda: now[0], processor=lambda: 0.5)
    times.reached("imports")
    with times.step("postgres"):
        now[0] = 1.25
    now[0] = 2.0
    times.reached("imports")
    assert times.fields() == {"imports_ms": 1000, "postgres_ms": 250, "total_ms": 2000, "cpu_ms": 500}


def test_late_thing_is_made_once_for_all_who_ask() -> None:
    made = []
    everyone_asks = threading.Barrier(4)

    def make() -> object:
        made.append(object())
        return made[-1]

    late = Late(make)
    assert late.made is None

    def ask() -> object:
        everyone_asks.wait()
        return late()

    with ThreadPoolExecutor(4) as pool:
        results = [asked.result() for asked in [pool.submit(ask) for _ in range(4)]]
    assert len(made) == 1
    assert results == made * 4
    assert late.made is made[0]


def test_late_thing_that_could_not_be_made_is_made_for_the_next_who_asks() -> None:
    answers = iter([OSError("not now"), 7])

    def make() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    late = Late(make)
    with pytest.raises(OSError, match="not now"):
        late()
    assert late() == 7
