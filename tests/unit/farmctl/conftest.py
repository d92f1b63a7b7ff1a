"""farmctl as a person runs it, against a real gateway on a real socket with a small farm behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controller.gateway.http.server import HttpServer
from farmctl.api.session import Session
from farmctl.main import run
from tests.unit.gateway.small_farm import TOKEN, SmallFarm

T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class ServedFarm:
    """A small farm on a loop of its own thread, behind a listening gateway."""

    def __init__(self, *nodes: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.small = self.do(lambda: SmallFarm(*nodes))
        self.server = self.do(lambda: HttpServer(self.small.app, "127.0.0.1", 0))
        asyncio.run_coroutine_threadsafe(self.small.start(), self._loop).result(10)
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def do(self, work: Callable[[], T]) -> T:
        """Run something on the farm's own thread."""
        answer: Future[T] = Future()

        def call() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return answer.result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        with suppress(RuntimeError):
            self._loop.close()


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedFarm]:
    monkeypatch.setattr("controller.gateway.http.server.DRAIN_S", 0)
    served = ServedFarm("node-1", "node-2")
    token = tmp_path / "operator.token"
    token.write_text(TOKEN + "\n")
    monkeypatch.setenv("AGENTFARM_SERVER", served.url)
    monkeypatch.setenv("AGENTFARM_TOKEN_FILE", str(token))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(Session, "sleep", lambda session, seconds: served.do(lambda: None))  # let the farm go on
    yield served
    served.stop()


@pytest.fixture
def farmctl(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert "Traceback (most recent call last)" not in output.err
        return Ran(int(code), output.out, output.err)

    return call


@pytest.fixture
def echo_agent(tmp_path: Path) -> Path:
    """An agent named echo on disk."""
    path = tmp_path / "agents" / "echo.py"
    path.parent.mkdir()
    path.write_text("async def main(value):\n    return value\n")
    return path
