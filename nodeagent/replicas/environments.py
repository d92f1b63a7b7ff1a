"""Python environments on this node, by the digest of what they must hold.

Built with `uv` beside their place, checked, and renamed into it: an environment is there whole or not at all. An agent
without requirements runs in the farm's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from nodeagent.core.problems import StartFailed
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder, run_program

LOCK_NAMES: Final = ("requirements.lock", "requirements.txt")
BUILD_TIMEOUT_S: Final = 900.0
CHECK_TIMEOUT_S: Final = 60.0
SPARE_ENVIRONMENTS: Final = 4
FAILED_KEPT_S: Final = 30.0
"""A failed build is not tried again for this long: its replicas all get the same answer."""
MESSAGE_CHARS_MAX: Final = 8_000

GRAPH_MODULES: Final = (
    "langgraph.graph", "langgraph.prebuilt", "langgraph.types", "langchain_core.runnables", "langchain_core.messages",
    "langchain_core.language_models", "agentfarm.sdk.graphs", "agentfarm.sdk.checkpoints",
)  # fmt: skip
_USES_GRAPH: Final = re.compile(rb"^\s*(?:from|import)\s+(?:langgraph|langchain)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with what an agent needs. `name` is safe as a file's."""

    name: str
    python: Path


FARM_ENVIRONMENT: Final = Environment("farm", Path(OUR_PYTHON))


class Environments:
    """The folder `environments/`."""

    def __init__(self, folder: Path, runtime: RuntimeFolder) -> None:
        self._folder = folder
        self._runtime = runtime
        self._locks: dict[str, asyncio.Lock] = {}
        self._failed: dict[str, tuple[float, StartFailed]] = {}

    async def get(self, bundle: Path) -> Environment:
        """The environment for an agent's files, built if it is not there. Raises StartFailed with uv's words."""
        requirements = next((bundle / name for name in LOCK_NAMES if (bundle / name).is_file()), None)
        if requirements is None:
            return FARM_ENVIRONMENT
        name = environment_name(requirements.read_bytes())
        environment = Environment(name, self._folder / name / "bin" / "python")
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not environment.python.exists():
                await self._build_once(environment, requirements)
            with suppress(OSError):
                os.utime(self._folder / name)
        return environment

    async def _build_once(self, environment: Environment, requirements: Path) -> None:
        now = asyncio.get_running_loop().time()
        failed_at, problem = self._failed.get(environment.name, (-FAILED_KEPT_S, None))
        if problem is not None and now - failed_at < FAILED_KEPT_S:
            raise problem
        try:
            await self._build(environment, requirements)
        except StartFailed as problem:
            self._failed[environment.name] = (asyncio.get_running_loop().time(), problem)
            raise

    async def _build(self, environment: Environment, requirements: Path) -> None:
        log.info("environment.building", name=environment.name)
        began = asyncio.get_running_loop().time()
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = self._folder / f".{environment.name}.{os.getpid()}"
        shutil.rmtree(staged, ignore_errors=True)
        python = staged / "bin" / "python"
        try:
            await self._step([uv(), "venv", "--quiet", "--relocatable", "--python", OUR_PYTHON, str(staged)])
            await self._step(
                [uv(), "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)],
                cwd=requirements.parent,
            )
            await self._step([uv(), "pip", "check", "--quiet", "--python", str(python)])
            await self._step(
                self._runtime.command(python, "nodeagent.runner.replica.runtime"), timeout_s=CHECK_TIMEOUT_S
            )
            staged.rename(self._folder / environment.name)
        except OSError as problem:
            raise StartFailed("environment_failed", f"{problem}", is_final=False) from problem
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        took_s = round(asyncio.get_running_loop().time() - began, 2)
        log.info("environment.ready", name=environment.name, took_s=took_s)

    async def _step(self, command: list[str], *, cwd: Path | None = None, timeout_s: float = BUILD_TIMEOUT_S) -> None:
        ended = await run_program(command, timeout_s=timeout_s, cwd=cwd)
        if ended.code != 0:
            words = ended.output[-MESSAGE_CHARS_MAX:] or f"{command[0]} ended with code {ended.code}"
            raise StartFailed("environment_failed", words, is_final=True)

    def prune(self, used: set[str]) -> None:
        """Forget environments that no replica needs, but for the few used last."""
        if not self._folder.is_dir():
            return
        spare = [entry for entry in self._folder.iterdir() if not entry.name.startswith(".") and entry.name not in used]
        spare.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in spare[SPARE_ENVIRONMENTS:]:
            shutil.rmtree(entry, ignore_errors=True)
            log.info("environment.pruned", name=entry.name)


def environment_name(requirements: bytes) -> str:
    """The name of the environment for these requirements under this interpreter."""
    version = f"{sys.implementation.cache_tag}\0".encode()
    return hashlib.sha256(version + requirements).hexdigest()[:20]


@lru_cache(maxsize=256)
def modules_to_share(bundle: Path) -> tuple[str, ...]:
    """What the agent's environment zygote should import before it forks: LangGraph for agents that use it, else
    nothing.

    Bundles never change, so it is found out once. Only a matter of speed and memory: an agent imports what it needs in
    any case.
    """
    for path in bundle.rglob("*.py"):
        if path.is_file() and _USES_GRAPH.search(path.read_bytes()):
            return GRAPH_MODULES
    return ()


def uv() -> str:
    """The `uv` program of our own environment, or the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        raise StartFailed(
            "environment_failed", "The program uv is not installed on this node: pip install uv.", is_final=True
        )
    return program
