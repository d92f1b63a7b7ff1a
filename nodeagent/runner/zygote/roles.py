"""What a zygote forks: agent zygotes out of the environment's, replicas out of an agent's."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from nodeagent.runner.protocol.launch import EXIT_NAME, Launch, start_ticks
from nodeagent.runner.replica.process import become_replica, set_name, take_streams
from nodeagent.runner.zygote.messages import LOG_NAME
from nodeagent.runner.zygote.server import Reply, Server

LOG_BYTES_MAX = 2**20
_ANSWER_BYTES_MAX = 1024 * 1024


class EnvironmentZygote:
    """Forks agent zygotes; and replicas that load their agent themselves, where an agent cannot be forked."""

    def __init__(self, folder: Path) -> None:
        self._server = Server(folder, self._exited, ends_strays=False)
        self._server.handlers |= {"load": self._load, "fork": self._fork}

    def serve(self) -> None:
        """Until it must stop."""
        self._server.serve()

    def _load(self, request: dict[str, Any], reply: Reply) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._server.leave()
            os.close(reading)
            _become_agent_zygote(request, writing)
        os.close(writing)
        self._server.children.add(pid)
        chunks: list[bytes] = []

        def ready() -> None:
            data = os.read(reading, 65_536)
            chunks.append(data)
            if not data:
                self._server.unwatch(reading)
                os.close(reading)
                reply({"pid": pid, **_load_answer(b"".join(chunks))})

        self._server.watch(reading, ready)

    def _fork(self, request: dict[str, Any], reply: Reply) -> None:
        reply(fork_replica(self._server, request, None))

    def _exited(self, pid: int, status: int) -> dict[str, Any] | None:
        return replica_exited(self._server, pid, status)


class AgentZygote:
    """Forks replicas of one agent version."""

    def __init__(self, folder: Path, agent: Any) -> None:
        self._agent = agent
        self._server = Server(folder, self._exited, ends_strays=True)
        self._server.handlers |= {"fork": self._fork}

    def serve(self) -> None:
        """Until it must stop and its replicas are gone."""
        self._server.serve()

    def _fork(self, request: dict[str, Any], reply: Reply) -> None:
        reply(fork_replica(self._server, request, self._agent))

    def _exited(self, pid: int, status: int) -> dict[str, Any] | None:
        return replica_exited(self._server, pid, status)


def fork_replica(server: Server, request: dict[str, Any], agent: Any | None) -> dict[str, Any]:
    """Fork one replica; the answer names its process."""
    launch = Launch.from_dict(request["launch"])
    forked_at_ns, ourselves = time.monotonic_ns(), os.getpid()
    pid = os.fork()
    if pid == 0:
        server.leave()
        become_replica(launch, agent, forked_at_ns, zygote=ourselves)
    server.children.add(pid)
    server.replicas[pid] = launch
    return {"pid": pid, "start_ticks": start_ticks(pid)}


def replica_exited(server: Server, pid: int, status: int) -> dict[str, Any] | None:
    """Leave word of a replica's exit in its folder, for a daemon that is away; make the news for one that is here."""
    launch = server.replicas.pop(pid, None)
    if launch is None:
        return None
    word = {"pid": pid, "status": status, "replica_id": launch.replica_id}
    with suppress(OSError):
        staged = launch.home / f".{EXIT_NAME}"
        staged.write_text(json.dumps(word))
        staged.rename(launch.home / EXIT_NAME)
    return {"event": "exit", **word}


def _become_agent_zygote(request: dict[str, Any], writing: int) -> NoReturn:
    """Import the agent, say how that went, serve."""
    folder = Path(request["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        take_streams(folder / LOG_NAME, LOG_BYTES_MAX)
        os.setsid()
        set_name(f"af-zygote:{request['name']}")
        zygote = _load_agent(folder, request, writing)
        if zygote is not None:
            zygote.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _load_agent(folder: Path, request: dict[str, Any], writing: int) -> AgentZygote | None:
    from agentfarm.sdk import AgentImportError, load_agent  # noqa: PLC0415 - not before the environment is ready

    try:
        os.environ.update(request.get("environment", {}))
        os.chdir(request["bundle"])
        signal.setitimer(signal.ITIMER_REAL, float(request.get("limit_s", 0)))  # ends an import that never does
        agent = load_agent(Path(request["bundle"]), request.get("entry"))
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
        gc.freeze()
        zygote = AgentZygote(folder, agent)
    except AgentImportError as problem:
        _write(writing, {"error": str(problem), "traceback": problem.traceback})
        return None
    except BaseException as problem:
        _write(writing, {"error": f"{type(problem).__name__}: {problem}", "traceback": traceback.format_exc()})
        return None
    _write(writing, {"threads": _thread_count(), "kind": getattr(agent, "kind", "")})
    return zygote


def _thread_count() -> int:
    """Native threads of this process: more than one and its locks cannot be trusted after a fork."""
    return len(os.listdir("/proc/self/task"))


def _write(fd: int, answer: dict[str, Any]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    data = json.dumps(answer).encode()[:_ANSWER_BYTES_MAX]
    while data:
        data = data[os.write(fd, data) :]
    os.close(fd)


def _load_answer(data: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError:
        return {"error": "The process died while it imported the agent.", "traceback": ""}
    return answer
