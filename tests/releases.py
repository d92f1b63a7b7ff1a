"""Earlier releases as real programs: built from their commit, installed beside this checkout, run as processes.

    release = installed(BEFORE)    # builds it on first use; skips the test where its commit is not here
    Farm(python={"node-1": release.python}, environment=UNMIXED)    # that node is of that release, the rest of ours

Each has an environment of its own in `.tools/releases/`, with the release's packages and, by a `.pth` file, the
libraries of ours. Our editable install is not seen there. What is run with its interpreter needs `UNMIXED` in its
environment: else `python -m` takes the packages of the folder it is started in.
"""

from __future__ import annotations

import fcntl
import functools
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
RELEASES: Final = ROOT / ".tools" / "releases"
UNMIXED: Final = {"PYTHONSAFEPATH": "1"}
STEP_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Release:
    """What was released, and from which commit."""

    version: str
    commit: str


@dataclass(frozen=True, slots=True)
class Installed:
    """A release that can be run: `[python, "-m", "controller.main", …]` with `UNMIXED`."""

    release: Release
    python: Path


BEFORE: Final = Release("0.1.0", "e4718bbcbe33f2d29bdbab0e380fb3d85bb5ee21")
"""The last release: what the farm is upgraded from."""


@functools.cache
def installed(release: Release) -> Installed:
    """The release, built and installed on first use. Skips the test where its commit is not in this clone."""
    RELEASES.mkdir(parents=True, exist_ok=True)
    folder = RELEASES / release.commit
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers run tests: one builds, the others wait
        if not _is_complete(folder):
            archive = _archive(release)
            shutil.rmtree(folder, ignore_errors=True)
            _install(_build(archive, release), folder)
            _complete_mark(folder).write_text(_libraries())
    return Installed(release, folder / "bin" / "python")


def _archive(release: Release) -> bytes:
    """The files of its commit, as a tar."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", release.commit]
    try:
        done = subprocess.run(command, capture_output=True, timeout=STEP_TIMEOUT_S, check=False)
    except FileNotFoundError:
        pytest.skip(f"release {release.version} cannot be built: git is not installed")
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        pytest.skip(
            f"release {release.version} cannot be built: its commit {release.commit[:7]} is not in this clone"
            f" ({said}); `git fetch --unshallow` brings it"
        )
    return done.stdout


def _build(archive: bytes, release: Release) -> bytes:
    """Its wheel, made with our hatchling: nothing is downloaded."""
    with tempfile.TemporaryDirectory(prefix="agentfarm-release-") as name:
        source, out = Path(name) / "source", Path(name) / "out"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
        _run(sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(out), cwd=source)
        (wheel,) = out.glob(f"agentfarm-{release.version}-*.whl")
        return wheel.read_bytes()


def _install(wheel: bytes, folder: Path) -> None:
    """An environment with the wheel and, after it, our libraries."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(_libraries() + "\n")
    with zipfile.ZipFile(io.BytesIO(wheel)) as files:
        files.extractall(site)  # it is pure Python: an installer would lay down the same
    found = _run(
        str(folder / "bin" / "python"), "-P", "-c",
        "import controller.main, nodeagent.main, agentfarm; print(agentfarm.__file__)", cwd=folder,
    )  # fmt: skip
    assert found.strip().startswith(str(site)), f"another agentfarm is imported: {found}"


def _libraries() -> str:
    """Where the libraries of this environment lie. The `.pth` files of that folder have no effect from elsewhere."""
    return sysconfig.get_path("purelib")


def _complete_mark(folder: Path) -> Path:
    return folder / "complete"


def _is_complete(folder: Path) -> bool:
    mark = _complete_mark(folder)
    return mark.exists() and mark.read_text() == _libraries() and (folder / "bin" / "python").exists()


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
