"""Farms for acceptance tests: `farmctl dev` and the other verbs, run as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT.parent / "shared" / "data" / "coinbase"
FARMCTL = (sys.executable, "-c", "from farmctl.main import main; main()")
DEADLINE_S = 60.0
AWAY_MAX_S = 30.0
NO_FARM = {name: value for name, value in os.environ.items() if not name.startswith("AGENTFARM_")}


@dataclass(frozen=True)
class Done:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it said to programs; stdout must hold that and nothing else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def farmctl(
    *arguments: str, cwd: Path, timeout_s: float = DEADLINE_S, text: str = "", env: Mapping[str, str] | None = None
) -> Done:
    """Run a verb to its end. `env`: variables laid over ours."""
    done = subprocess.run(
        [*FARMCTL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout_s, input=text,
        env={**NO_FARM, **(env or {})}, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def until(look: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `look()` is truthy, and return that."""
    deadline = time.monotonic() + deadline_s
    pause = threading.Event()
    while not (match := look()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain for {what}"
        pause.wait(0.05)
    return match


def processes_of(folder: Path) -> list[psutil.Process]:
    """Everything whose command line names the folder, the `farmctl dev` that was given it included."""
    processes = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(folder) in words and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            processes.append(process)
    return processes


class Farm:
    """A `farmctl dev` that stays up in `home`, and verbs run beside it."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.folder = home / ".farm"
        self._errors = (home / "dev.err").open("ab")
        self.process = subprocess.Popen(
            [*FARMCTL, "dev", "--json", "--data-dir", str(self.folder), *options], cwd=home, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env=NO_FARM,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # it comes when the farm is ready; its end comes when it cannot be
        assert line, f"the farm did not start:\n{self.words}"
        self.announcement = json.loads(line)
        if "problem" in self.announcement:
            self.end()
            raise AssertionError(f"the farm did not start: {self.announcement}\n{self.words}")

    @property
    def words(self) -> str:
        """What it printed for people."""
        return (self.home / "dev.err").read_text(errors="replace")

    def ctl(self, *arguments: str, timeout_s: float = DEADLINE_S, text: str = "") -> Done:
        """A verb, in the farm's folder."""
        return farmctl(*arguments, cwd=self.home, timeout_s=timeout_s, text=text)

    def ask(self, *arguments: str, timeout_s: float = DEADLINE_S) -> Any:
        """The JSON of a verb that must succeed. A farm that is away is asked again, as its message says to."""
        done = self.ctl(*arguments, "--json", timeout_s=timeout_s)
        deadline = time.monotonic() + AWAY_MAX_S
        while done.code != 0 and '"code": "unavailable"' in done.out and time.monotonic() < deadline:
            done = self.ctl(*arguments, "--json", timeout_s=timeout_s)
        assert done.code == 0, f"farmctl {' '.join(arguments)}: {done.code}\n{done.out}\n{done.err}"
        return done.json

    def deploy(self, name: str, code: str, spec: str = "") -> Path:
        """Write an agent into the farm's home and deploy it."""
        path = self.write(name, code, spec)
        self.ask("deploy", str(path))
        return path

    def write(self, name: str, code: str, spec: str = "") -> Path:
        """An agent as a folder. Equal text gives an equal bundle."""
        folder = self.home / "agents" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.py").write_text(code)
        (folder / "agent.yaml").write_text(spec or "{}\n")
        return folder

    def submit(self, agent: str, given: Any) -> int:
        """A task's id."""
        return int(self.ask("task", "submit", agent, json.dumps(given))["id"])

    def task(self, task: int) -> Any:
        return self.ask("task", "show", str(task))

    def wait(self, *tasks: int, timeout: str = "60s") -> list[Any]:
        """The tasks once they have ended, however they did."""
        self.ask("status")  # so that a farm that is away for a moment is back
        done = self.ctl("task", "wait", *map(str, tasks), "--timeout", timeout, "--json", timeout_s=90)
        answer = done.json if isinstance(done.json, list) else [done.json]
        assert all(task["is_final"] for task in answer), [(task["id"], task["state"]) for task in answer]
        return answer

    def replicas(self, agent: str) -> list[Any]:
        return [replica for replica in self.ask("status")["replicas"] if replica["deployment"] == agent]

    def pid_of(self, name: str) -> int:
        """The process that `farmctl dev` runs as controller, node-1, …"""
        records = json.loads((self.folder / "processes.json").read_text())
        config = str(self.folder / f"{name}.yaml")
        if name == "controller":
            return int(json.loads((self.folder / "controller" / "controller.json").read_text())["pid"])
        node = self.folder / name / "node.json"
        if node.exists():
            return int(json.loads(node.read_text())["pid"])
        return next(int(record["pid"]) for record in records if config in record["command"])

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as Ctrl-C does. Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(90)
        finally:
            self.end()
        return code

    def end(self) -> None:
        """Whatever happened, leave nothing: for the test's end, not part of what is tested."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in processes_of(self.folder):
            process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()
