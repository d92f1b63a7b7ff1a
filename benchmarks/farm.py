"""A farm of real processes for benchmarks and fault tests: a controller with its PostgreSQL, and node daemons.

Everything binds to loopback, lives in one folder and ends with the context. CPU and memory are summed over every
process of the farm, PostgreSQL and replicas included.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import psutil
import yaml

from agentfarm.agents.bundle import pack
from agentfarm.agents.sources import find_agents

READY_DEADLINE_S: Final = 120.0
STOP_DEADLINE_S: Final = 20.0
EXAMPLES: Final = Path(__file__).parents[1] / "examples"


class Farm:
    """A farm as a context: `with Farm(nodes=3) as farm: farm.deploy(…)`. Its processes may be killed, and restarted."""

    def __init__(
        self,
        nodes: int = 1,
        *,
        folder: Path | None = None,
        controller: dict[str, Any] | None = None,
        node: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        python: dict[str, Path] | None = None,
    ) -> None:
        """python: interpreters of controllers and nodes that are of another release of the farm, by name."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="farm-"))
        self._is_own_folder = folder is None
        self._controller_settings = {"gateway_port": 0, "link_port": 0, "log_level": "info", **(controller or {})}
        self._node_settings = node or {}
        self._own_settings: dict[str, dict[str, Any]] = {}
        """Of single controllers and nodes, for their restarts."""
        self._environment = {**os.environ, **(environment or {})}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a farm's programs are not compiled at each start
        self.python = dict(python or {})
        self.node_names = [f"node-{i + 1}" for i in range(nodes)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client()
        self.gateway = ""

    def __enter__(self) -> Farm:
        try:
            self.start_controller()
            for name in self.node_names:
                self.join(name)
                self.start_node(name)
            self.wait_for(lambda: self.ready_nodes() == len(self.node_names), "nodes to be ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    # -------------------------------------------------------------- processes

    def start_controller(self, name: str = "controller", *, leads: bool = True, **settings: Any) -> None:
        """Start a controller and wait until its gateway answers; on a second start it keeps its settings and ports.

        leads: wait until it leads, too, and speak to this one from now on.
        """
        data_dir = self.folder / name
        data_dir.mkdir(parents=True, exist_ok=True)
        announced = data_dir / "controller.json"
        announced.unlink(missing_ok=True)
        own = self._own_settings.setdefault(name, {})
        own.update(settings)
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump({"data_dir": str(data_dir), **self._controller_settings, **own}))
        self._spawn(name, "controller.main", "--config", str(config))
        announcement = self.wait_for(lambda: _read_json(announced), f"the {name}")
        own["gateway_port"] = int(announcement["gateway"].rsplit(":", 1)[1])
        own["link_port"] = int(announcement["link"].rsplit(":", 1)[1])
        if leads:
            self.speak_to(name)
            self.wait_for(self._leads, f"the {name} to lead")

    def speak_to(self, name: str) -> None:
        """From now on `http` and `gateway` are those of this controller."""
        self.gateway = self.gateway_of(name)
        token = (self.folder / name / "operator.token").read_text().strip()
        self.http.close()
        self.http = httpx.Client(base_url=self.gateway, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def gateway_of(self, name: str) -> str:
        """Where a controller answers programs. KeyError before its first start."""
        return f"http://127.0.0.1:{self._own_settings[name]['gateway_port']}"

    def link_port(self, name: str = "controller") -> int:
        """Where a controller listens for nodes."""
        return int(self._own_settings[name]["link_port"])

    def join(self, name: str) -> None:
        """Invite a node and let it join."""
        invited = self.http.post("/v1/nodes/invite", json={"name": name})
        invited.raise_for_status()
        command = [*self._program(name, "nodeagent.main"), "join", invited.json()["token"]]
        subprocess.run([*command, "--data-dir", str(self.folder / name)], check=True, capture_output=True,
                       env=self._environment)  # fmt: skip

    def start_node(self, name: str, **settings: Any) -> None:
        """Start a node's daemon; on a second start it keeps its settings."""
        own = self._own_settings.setdefault(name, {})
        own.update(settings)
        config = self.folder / f"{name}.yaml"
        common = {"data_dir": str(self.folder / name), "stop_replicas_on_exit": True, "metrics_port": 0}
        config.write_text(yaml.safe_dump({**common, **self._node_settings, **own}))
        self._spawn(name, "nodeagent.main", "run", "--config", str(config))

    def kill(self, name: str) -> None:
        """kill -9 of one process alone; its children live on."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name: str) -> None:
        """Ask one process to end, and wait until it has; its children live on if its settings say so."""
        self.processes[name].terminate()
        self.processes[name].wait(STOP_DEADLINE_S)

    def kill_node(self, name: str) -> None:
        """A power cut: the daemon and everything of its node, at once."""
        for process in self.members(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes[name].wait()

    def _spawn(self, name: str, module: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [*self._program(name, module), *arguments], stdout=log, stderr=log, start_new_session=True,
                env=self._environment,
            )  # fmt: skip

    def _program(self, name: str, module: str) -> list[str]:
        return [str(self.python.get(name, sys.executable)), "-m", module]

    def _end(self) -> None:
        self.http.close()
        everyone = [member for name in self.processes for member in self.members(name)]
        for name in reversed(list(self.processes)):
            if self.processes[name].poll() is None:
                self.processes[name].send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_S
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        for left in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        if self._is_own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def members(self, name: str) -> list[psutil.Process]:
        """Every living process of a controller or node: also those that outlived the one that had started them."""
        mine = str(self.folder / name) + "/"
        is_up = self.processes[name].poll() is None  # else its pid may be another's by now
        processes = {process.pid: process for process in (self._tree(self.processes[name].pid) if is_up else ())}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if any(word.startswith(mine) for word in (process.cwd() + "/", *process.cmdline())):
                    processes[process.pid] = process
        return list(processes.values())

    def _tree(self, pid: int) -> list[psutil.Process]:
        try:
            root = psutil.Process(pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by kind of process: controller, postgres, daemon, replica (zygotes included)."""
        used: dict[str, float] = {}
        for name, process in self.processes.items():
            for member in self._tree(process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = member.cpu_times()
                    kind = _kind(name, member, process.pid)
                    used[kind] = used.get(kind, 0.0) + times.user + times.system
        return used

    # -------------------------------------------------------------- work

    def deploy(self, path: Path, *, replicas: int = 1, **changes: Any) -> str:
        """Deploy the agent at `path`, its spec changed by `changes`, and wait until every replica runs. Its name."""
        (source,) = find_agents(path)
        bundle = pack(source)
        self.http.put(f"/v1/bundles/{bundle.digest}", content=bundle.data).raise_for_status()
        spec = {**json.loads(source.spec.canonical_json()), **changes}
        answer = self.http.post("/v1/deployments", json={"spec": spec, "digest": bundle.digest, "replicas": replicas})
        answer.raise_for_status()
        self.wait_running(source.spec.name, replicas)
        return source.spec.name

    def wait_running(self, name: str, replicas: int) -> None:
        """Until that many replicas of a deployment run."""

        def running() -> bool:
            view = self.http.get(f"/v1/deployments/{name}").raise_for_status().json()
            return bool(sum(r["state"] == "running" for r in view["replicas"]) >= replicas)

        self.wait_for(running, f"{replicas} replicas of {name}")

    def wait_for(self, look: Any, what: str, deadline_s: float = READY_DEADLINE_S) -> Any:
        """Poll until `look()` is truthy; raises with the tails of all logs."""
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, OSError):
                answer = look()
                if answer:
                    return answer
            time.sleep(0.02)
        raise TimeoutError(f"waited {deadline_s:g} s in vain for {what}\n{self.log_tails()}")

    def log_tails(self) -> str:
        """The last lines of every process's log."""
        parts = [f"--- {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-15:])
                 for p in sorted(self.folder.glob("*.log"))]  # fmt: skip
        return "\n".join(parts)

    def _leads(self) -> bool:
        return bool(self.http.get("/v1/status").status_code == 200)

    def ready_nodes(self) -> int:
        """How many nodes the controller calls ready."""
        nodes = self.http.get("/v1/nodes").raise_for_status().json()
        rows = nodes["nodes"] if isinstance(nodes, dict) else nodes
        return sum(row["state"] == "ready" for row in rows)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _kind(name: str, member: psutil.Process, root: int) -> str:
    if name == "controller":
        return "controller" if member.pid == root else "postgres"
    return "daemon" if member.pid == root else "replica"


def progress(text: str) -> None:
    """One line on standard error that the next one overwrites."""
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n",
          file=sys.stderr, flush=True)  # fmt: skip


def machine() -> str:
    """The machine in words, for a figure's label."""
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
