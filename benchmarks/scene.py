"""Where faults happen: a farm of real processes, a proxy before each node, steady work, and handles on every process.

A `Scene` is a context. With `standby`, two controllers share a PostgreSQL that neither of them supervises; else there
is one controller with the PostgreSQL it brings. Nothing here chooses a fault or judges what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import psutil
import psycopg2

from benchmarks import clock
from benchmarks.farm import Farm
from benchmarks.load import Load, Witness
from benchmarks.proxy import Proxy

T = TypeVar("T")
AGENTS: Final = Path(__file__).parent / "agents"
DISK_MIB: Final = {"node-1": 48, "controller": 768}
"""File systems of their own for processes that run out of disk."""
CONTROLLERS: Final = ("controller", "standby")
ROUTE_EVERY_S: Final = 0.25


class Background:
    """An event loop on a thread of its own, for everything that goes on while faults are made."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], deadline_s: float = 60.0) -> T:
        """Run it there; its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(deadline_s)

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Scene:
    """See the module. `leader` is the controller that serves; it changes when another takes over."""

    def __init__(
        self,
        *,
        nodes: int,
        replicas: int,
        standby: bool,
        per_s: float,
        seconds: tuple[float, float],
        seed: int,
        folder: Path,
    ) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.nodes = [f"node-{number + 1}" for number in range(nodes)]
        self.replicas = replicas
        self.has_standby = standby
        self.leader = "controller"
        self.agents: dict[str, int] = {}
        """Name to replicas."""
        self.proxies: dict[str, Proxy] = {}
        self.full_disks: set[str] = set()
        self.background = Background()
        self.clock = clock.make(folder)
        self.load: Load
        self.witness: Witness
        self.farm = Farm(nodes=0, folder=folder, environment=self.clock.environment if self.clock else None)
        self._work: dict[str, Any] = {"per_s": per_s, "seconds": seconds, "seed": seed}
        self._postgres: Any = None
        self._ending = threading.Event()
        self._stack = contextlib.ExitStack()

    @property
    def record(self) -> Path:
        """Where agents note what they do."""
        return self.folder / "record"

    # -------------------------------------------------------------- from nothing to steady work, and back

    def __enter__(self) -> Scene:
        self._stack.callback(self.background.stop)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        for name in ("controller", *self.nodes):
            self._own_disk(name)
        self._start_controllers()
        for name in self.nodes:
            proxy = self.proxies[name] = Proxy("127.0.0.1", self.farm.link_port(self.leader))
            self.background.do(proxy.start())
            self._stack.callback(self._stop_proxy, proxy)
            self.farm.join(name)
            self.farm.start_node(name, link=proxy.address)
        self.wait_ready()
        steppers = max(1, self.replicas // 3)
        for file, replicas in (("recorder.py", self.replicas - steppers), ("stepper.py", steppers)):
            self.agents[self.farm.deploy(AGENTS / file, replicas=replicas, concurrency=8)] = replicas
        token = (self.folder / "controller" / "operator.token").read_text().strip()
        gateways = [self.farm.gateway]
        if self.has_standby:
            self._start_standby()
            gateways.append(self.farm.gateway_of("standby"))
            router = threading.Thread(target=self._route, name="router", daemon=True)
            router.start()
            self._stack.callback(router.join)
            self._stack.callback(self._ending.set)
        self.load = Load(gateways, token, list(self.agents), str(self.record), **self._work)
        self.witness = Witness(self.dsn, self.load)
        self.witness.start()
        self._stack.callback(self.witness.stop)
        self.background.do(self.load.start())
        self._stack.callback(lambda: self.background.do(self.load.stop(0.0)))

    def _stop_proxy(self, proxy: Proxy) -> None:
        self.background.do(proxy.stop())

    def _start_controllers(self) -> None:
        settings: dict[str, Any] = {}
        if self.has_standby:
            from controller.postgres import EmbeddedPostgres  # noqa: PLC0415 - only here: a server beside the farm

            self._postgres = EmbeddedPostgres(self.folder / "postgres")
            self.background.do(self._postgres.start(), 120)
            self._stack.callback(lambda: self.background.do(self._postgres.stop()))
            settings["database_url"] = self._postgres.dsn
        self._stack.push(self.farm.__exit__)
        self.farm.start_controller("controller", **settings)
        self._settings = settings

    def _start_standby(self) -> None:
        """The second controller has the CA and the operators' token of the first."""
        data_dir = self.folder / "standby"
        data_dir.mkdir()
        shutil.copytree(self.folder / "controller" / "ca", data_dir / "ca")
        shutil.copy2(self.folder / "controller" / "operator.token", data_dir / "operator.token")
        self.farm.start_controller("standby", leads=False, **self._settings)

    def _own_disk(self, name: str) -> None:
        """A small file system at its data folder, where we may mount one."""
        if name not in DISK_MIB or os.geteuid() != 0 or not sys.platform.startswith("linux"):
            return
        place = self.folder / name
        place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB[name]}m,mode=755", "agentfarm-chaos", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            self.full_disks.add(name)
            self._stack.callback(lambda: subprocess.run(["umount", "-l", str(place)], check=False))

    # -------------------------------------------------------------- looking

    def dsn(self) -> str:
        """PostgreSQL, for ourselves. Raises OSError while it does not run."""
        socket_folder = (self.postgres_folder / "data" / "postmaster.pid").read_text().splitlines()[4:5]
        if not socket_folder:
            raise OSError("postmaster.pid is not whole")
        return f"postgresql://agentfarm@/agentfarm?host={quote(socket_folder[0].strip(), safe='')}"

    @property
    def postgres_folder(self) -> Path:
        """Of the server that the leader uses."""
        return self.folder / "postgres" if self.has_standby else self.folder / "controller" / "postgres"

    def postmaster(self) -> int:
        """PostgreSQL's pid."""
        return int((self.postgres_folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def backends(self, *, of_leader: bool = False) -> list[int]:
        """Pids of the sessions of controllers, or only that of the session by which the leader leads."""
        where = "datname IS NOT NULL AND pid <> pg_backend_pid() AND application_name <> 'witness'"
        if of_leader:
            where += " AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
        return [int(row[0]) for row in self._ask(f"SELECT pid FROM pg_stat_activity WHERE {where} ORDER BY pid")]

    def end_session(self, backend: int) -> None:
        """As an administrator would."""
        self._ask("SELECT pg_terminate_backend(%s)", backend)

    def _ask(self, query: str, *arguments: Any) -> list[Any]:
        connection = psycopg2.connect(self.dsn(), connect_timeout=5)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return list(cursor.fetchall())

    def zygotes(self, node: str) -> list[psutil.Process]:
        """Environment and agent zygotes of a node."""
        return [process for process in self.farm.members(node) if _name(process).startswith("af-zygote")]

    def replica_processes(self, node: str) -> list[psutil.Process]:
        """Replicas of a node."""
        return [process for process in self.farm.members(node) if _name(process).startswith("af:")]

    def node_in_use(self) -> str:
        """A node that runs replicas, by chance."""
        used: set[str] = {
            replica["node"] for agent in self.agents for replica in self._replicas(agent)
            if replica["state"] == "running"
        }  # fmt: skip
        return self.chance.choice(sorted(used))

    # -------------------------------------------------------------- doing

    def restart(self, name: str) -> None:
        """Start a controller or a node again, as a service manager would."""
        if name not in CONTROLLERS:
            self.farm.start_node(name)
        elif self.has_standby:
            self.farm.start_controller(name, leads=False)
        else:
            self.farm.start_controller(name)

    @contextlib.contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """A process that does nothing (SIGSTOP) for a while."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def full_disk(self, name: str) -> Iterator[None]:
        """The file system of a data folder has no byte left."""
        filler = self.folder / name / "filler"
        descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while os.write(descriptor, b"\0" * size):
                        pass
            yield
        finally:
            os.close(descriptor)
            filler.unlink()

    def hold(self, node: str, *, up: bool = False, down: bool = False) -> None:
        """The network of a node: what may not pass. Nothing said: all may."""
        self.background.do(_call(lambda: self.proxies[node].hold(up=up, down=down)))

    def cut(self, node: str, *, lost: str | None = None) -> int:
        """Every connection of a node broken: by RST to both ends, or half open with `client` or `server` gone."""
        proxy = self.proxies[node]
        work = _call(lambda: proxy.reset() if lost is None else proxy.half_open(lost=lost))
        return self.background.do(work)

    def burst(self, count: int) -> None:
        """That many short tasks at once, on their way when this returns."""
        self.background.do(self.load.burst(count, 0.1))

    # -------------------------------------------------------------- recovering

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Until a controller leads, every node is ready and every replica runs."""
        self.farm.wait_for(self._is_ready, "a leader, all nodes and all replicas", deadline_s)

    def _route(self) -> None:
        """As a load balancer before two controllers does: nodes' connections go to the one that leads."""
        while not self._ending.wait(ROUTE_EVERY_S):
            leader = next((name for name in CONTROLLERS if self._leads(name)), self.leader)
            if leader != self.leader:
                self.leader = leader
                for node, proxy in self.proxies.items():
                    proxy.target = ("127.0.0.1", self.farm.link_port(leader))
                    self.cut(node)

    def _leads(self, name: str) -> bool:
        try:
            return httpx.get(f"{self.farm.gateway_of(name)}/healthz", timeout=1.0).status_code == 200
        except (httpx.HTTPError, KeyError):
            return False

    def _is_ready(self) -> bool:
        if self.farm.gateway != self.farm.gateway_of(self.leader):
            self.farm.speak_to(self.leader)
        if not self._leads(self.leader) or self.farm.ready_nodes() != len(self.nodes):
            return False
        return all(
            [replica["state"] for replica in self._replicas(agent)] == ["running"] * count
            for agent, count in self.agents.items()
        )

    def _replicas(self, agent: str) -> list[dict[str, Any]]:
        view = self.farm.http.get(f"/v1/deployments/{agent}").raise_for_status().json()
        return list(view["replicas"])

    def tell(self) -> str:
        """The ends of all logs, for the person who looks for the cause."""
        return self.farm.log_tails()


def _name(process: psutil.Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return ""


async def _call(deed: Callable[[], T]) -> T:
    return deed()


def agent_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line that agents wrote."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
