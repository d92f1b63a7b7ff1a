"""The daemon's side of the zygotes: finding them again, starting them, asking them for replicas.

One environment zygote per environment and set of shared modules; one agent zygote per bundle and entry within it. They
live in `zygotes/NAME/` and outlive us.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.process import kill_group
from nodeagent.core.problems import StartFailed
from nodeagent.machine.logging import log
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.replicas.environments import Environment, modules_to_share
from nodeagent.replicas.logs import last_lines
from nodeagent.runner.protocol.launch import Launch
from nodeagent.runner.protocol.unix_sockets import connect
from nodeagent.runner.zygote.messages import LOG_NAME, SOCKET_NAME, LineReader, encode

START_TIMEOUT_S: Final = 60.0
FORK_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.01
TRACEBACK_CHARS_MAX: Final = 16_000

ExitNews = Callable[[int, int, int], None]
"""replica id, pid, wait status"""


class ZygoteGone(Exception):
    """The zygote does not answer any more."""


class ZygoteClient(asyncio.Protocol):
    """A connection to one zygote."""

    def __init__(self, name: str, on_exit: ExitNews) -> None:
        self.name = name
        self.is_gone = False
        self._on_exit = on_exit
        self._reader = LineReader()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    @classmethod
    async def connect(cls, folder: Path, on_exit: ExitNews) -> ZygoteClient:
        """Raises OSError when no zygote serves this folder."""
        sock = connect(folder / SOCKET_NAME)
        _, client = await asyncio.get_running_loop().create_unix_connection(
            lambda: cls(folder.name, on_exit), sock=sock
        )
        return client

    async def ask(self, op: str, *, timeout_s: float, **facts: Any) -> dict[str, Any]:
        """One request. Raises ZygoteGone, also when it takes too long."""
        if self.is_gone or self._transport is None:
            raise ZygoteGone(self.name)
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._transport.write(encode({"id": number, "op": op, **facts}))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise ZygoteGone(f"{self.name} did not answer within {timeout_s:g} s") from None
        finally:
            self._asked.pop(number, None)

    def tell(self, op: str, **facts: Any) -> None:
        """What needs no answer. A zygote that does not read gets nothing more."""
        if self._transport is not None and not self.is_gone and not self._transport.get_write_buffer_size():
            self._transport.write(encode({"op": op, **facts}))

    async def stop(self, timeout_s: float) -> None:
        """End it. It answers first; it has ended when the system closes its side. Raises ZygoteGone after that time."""
        with suppress(ZygoteGone):
            await self.ask("stop", timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
        except TimeoutError:
            raise ZygoteGone(f"{self.name} had not ended after {timeout_s:g} s") from None

    def close(self) -> None:
        """Let go of the connection; the zygote lives on."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if message.get("event") == "exit":
                self._on_exit(message["replica_id"], message["pid"], message["status"])
            elif (future := self._asked.get(message.get("id", 0))) is not None and not future.done():
                future.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self._lost.set()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ZygoteGone(self.name))


@dataclass(slots=True)
class AgentZygote:
    """What forks the replicas of one agent version. `loads_agent`: its import starts threads, so replicas import it."""

    client: ZygoteClient
    loads_agent: bool


class Zygotes:
    """The folder `zygotes/`."""

    def __init__(self, folder: Path, runtime: RuntimeFolder, on_exit: ExitNews, *, release: str) -> None:
        self._folder = folder
        self._release = release
        self._runtime = runtime
        self._on_exit = on_exit
        self._clients: dict[str, ZygoteClient] = {}
        self._agents: dict[str, AgentZygote] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._lease_until_s = 0.0

    async def prepare(self, environment: Environment, launch: Launch, *, import_timeout_s: float) -> None:
        """Have the agent imported, ready to be forked. Raises StartFailed."""
        try:
            await self._agent(environment, launch, import_timeout_s)
        except (ZygoteGone, OSError) as problem:
            raise StartFailed("crashed", f"The zygote died: {problem}", is_final=False) from problem

    async def fork(self, environment: Environment, launch: Launch, *, import_timeout_s: float) -> tuple[int, int]:
        """Start a replica: its pid and start ticks. Raises StartFailed."""
        for _ in range(3):  # a zygote may die just when it is asked; a new one is made
            try:
                agent = await self._agent(environment, launch, import_timeout_s)
                asked = Launch.from_dict({**_fields(launch), "loads_agent": agent.loads_agent})
                if launch.is_exclusive:  # what it forks may be at work before the next renewal
                    agent.client.tell("lease", until_s=self._lease_until_s)
                answer = await agent.client.ask("fork", timeout_s=FORK_TIMEOUT_S, launch=_fields(asked))
            except (ZygoteGone, OSError) as problem:
                log.warning("zygote.gone", problem=str(problem))
                self._agents.pop(self.name_for(environment, launch), None)
                continue
            if "error" in answer:
                raise StartFailed("crashed", f"The replica could not be forked: {answer['error']}", is_final=False)
            return int(answer["pid"]), int(answer["start_ticks"])
        raise StartFailed("crashed", "The zygote died several times while it forked the replica.", is_final=False)

    async def find(self) -> None:
        """Connect to every zygote that an earlier daemon left; clear away the folders of those that are gone."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            try:
                client = await ZygoteClient.connect(folder, self._on_exit)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._clients[folder.name] = client
            if folder.name.startswith("agent-"):
                self._agents[folder.name] = AgentZygote(client, loads_agent=False)

    def name_for(self, environment: Environment, launch: Launch) -> str:
        """The zygote of an agent version: what is imported, in which environment, with which variables, by which
        release
        of ours. So an upgraded daemon forks nothing new from what an older one left."""
        key = "\0".join((launch.bundle, launch.entry or "", repr(sorted(launch.environment.items()))))
        kinship = _kinship(environment, Path(launch.bundle), self._release)
        return f"agent-{kinship}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def lease_renewed(self, until_s: float, *, is_wanted: bool) -> None:
        """Zygotes end exclusive replicas that are at work after it, if nothing else does. is_wanted: there are such."""
        self._lease_until_s = until_s
        for client in self._clients.values() if is_wanted else ():
            client.tell("lease", until_s=until_s)

    async def retire(self, used: set[str]) -> None:
        """End agent zygotes that no replica needs, and then environment zygotes without agents."""
        for name in [name for name in self._clients if name.startswith("agent-") and name not in used]:
            await self._end(name)
        agents = used | {name for name in self._clients if name.startswith("agent-")}
        parents = {f"env-{name.removeprefix('agent-').rpartition('-')[0]}" for name in agents}
        for name in [name for name in self._clients if name.startswith("env-") and name not in parents]:
            await self._end(name)

    async def stop(self) -> None:
        """End them all; agent zygotes first."""
        await self.retire(set())

    def disconnect(self) -> None:
        """Let go of them; they live on."""
        for client in self._clients.values():
            client.close()

    async def _end(self, name: str) -> None:
        client = self._clients.pop(name)
        self._agents.pop(name, None)
        try:
            await client.stop(STOP_TIMEOUT_S)
        except ZygoteGone as problem:
            log.warning("zygote.lingers", problem=str(problem))
        client.close()

    # -------------------------------------------------------------- making them

    async def _agent(self, environment: Environment, launch: Launch, import_timeout_s: float) -> AgentZygote:
        name = self.name_for(environment, launch)
        async with self._locks.setdefault(name, asyncio.Lock()):
            agent = self._agents.get(name)
            if agent is not None and not agent.client.is_gone:
                return agent
            parent = await self._environment(environment, Path(launch.bundle))
            return await self._load(name, parent, launch, import_timeout_s)

    async def _load(self, name: str, parent: ZygoteClient, launch: Launch, timeout_s: float) -> AgentZygote:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SOCKET_NAME).unlink(missing_ok=True)
        try:
            answer = await parent.ask(
                "load", timeout_s=timeout_s, limit_s=timeout_s + 1, name=launch.deployment, folder=str(folder),
                bundle=launch.bundle, entry=launch.entry, environment=dict(launch.environment),
            )  # fmt: skip
        except ZygoteGone as problem:
            if parent.is_gone:
                raise
            raise StartFailed(
                "import_failed", f"The import of the agent took longer than {timeout_s:g} s.", is_final=True
            ) from problem
        if "error" in answer:
            raise StartFailed("import_failed", _import_words(answer, folder), is_final=True)
        client = self._clients[name] = await ZygoteClient.connect(folder, self._on_exit)
        agent = AgentZygote(client, loads_agent=False)
        if answer.get("threads", 1) > 1:
            log.warning("zygote.not_forkable", agent=launch.deployment, threads=answer["threads"],
                        consequence="each replica imports the agent itself: slower starts, more memory")  # fmt: skip
            await self._end(name)
            agent = AgentZygote(parent, loads_agent=True)
        self._agents[name] = agent
        return agent

    async def _environment(self, environment: Environment, bundle: Path) -> ZygoteClient:
        modules = modules_to_share(bundle)
        name = f"env-{_kinship(environment, bundle, self._release)}"
        async with self._locks.setdefault(name, asyncio.Lock()):
            client = self._clients.get(name)
            if client is None or client.is_gone:
                client = self._clients[name] = await self._start(name, environment, modules)
            return client

    async def _start(self, name: str, environment: Environment, modules: tuple[str, ...]) -> ZygoteClient:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        command = self._runtime.command(
            environment.python,
            "nodeagent.runner.zygote",
            "--folder",
            str(folder),
            *(["--preload", *modules] if modules else []),
        )
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once: it spawns, it does not wait
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    with suppress(OSError):
                        return await ZygoteClient.connect(folder, self._on_exit)
                    if process.poll() is not None and process.returncode != 0:
                        words = "\n".join(last_lines(folder / LOG_NAME, 20)) or f"code {process.returncode}"
                        raise StartFailed("environment_failed", f"The zygote ended: {words}", is_final=False)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            kill_group(process.pid)
            raise StartFailed(
                "environment_failed", f"The zygote was not ready within {START_TIMEOUT_S:g} s.", is_final=False
            ) from None


def _kinship(environment: Environment, bundle: Path, release: str) -> str:
    """The part of the names that an environment zygote and the agent zygotes forked from it have in common."""
    return f"{environment.name}-{'graph' if modules_to_share(bundle) else 'plain'}-{release}"


def _fields(launch: Launch) -> dict[str, Any]:
    return {name: getattr(launch, name) for name in Launch.__dataclass_fields__}


def _import_words(answer: dict[str, Any], folder: Path) -> str:
    """Why the import failed: the traceback, or what a process that died had still written."""
    traceback = str(answer.get("traceback", ""))[-TRACEBACK_CHARS_MAX:]
    if traceback:
        return traceback
    words = "\n".join(last_lines(folder / LOG_NAME, 20))
    return f"{answer['error']}\n{words}".strip()
