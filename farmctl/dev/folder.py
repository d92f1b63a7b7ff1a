"""The folder of one farm on this machine: its layout, its marker, its lock, and how it is forgotten.

Nothing is ever deleted in a folder that does not carry our marker.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import Conflict, InvalidRequest
from agentfarm.files import FileLock, Locked, write_file

MARKER: Final = ".agentfarm-dev"
_MARKER_TEXT: Final = "This folder belongs to `farmctl dev`. `farmctl dev --fresh` deletes what is in it.\n"
_KEPT_BY_FRESH: Final = frozenset({MARKER, ".gitignore", "lock"})


@dataclass(frozen=True, slots=True)
class FarmFolder:
    """Where everything lies. `root` is absolute."""

    root: Path

    @property
    def marker(self) -> Path:
        return self.root / MARKER

    @property
    def lock(self) -> Path:
        """Held by the `farmctl dev` that runs here; holds its pid."""
        return self.root / "lock"

    @property
    def announcement(self) -> Path:
        """What the other verbs read: server, token file, pid."""
        return self.root / "dev.json"

    @property
    def records(self) -> Path:
        """The processes started here, so that a later start can end what a killed one left."""
        return self.root / "processes.json"

    @property
    def examples(self) -> Path:
        """Which example agents were deployed here, by digest."""
        return self.root / "examples.json"

    @property
    def memory(self) -> Path:
        """What the next start takes up again: ports, the market's store."""
        return self.root / "remembered.json"

    @property
    def controller(self) -> Path:
        return self.root / "controller"

    @property
    def token_file(self) -> Path:
        return self.controller / "operator.token"

    def node(self, name: str) -> Path:
        return self.root / name

    def config(self, name: str) -> Path:
        """The settings file written for a process; it lies beside the folders, which belong to their processes."""
        return self.root / f"{name}.yaml"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def announce(self, announcement: dict[str, Any]) -> None:
        """Tell the other verbs where the farm is, atomically."""
        write_json(self.announcement, announcement)


def open_folder(root: Path) -> tuple[FarmFolder, FileLock]:
    """Lock the folder for this process. Makes and marks a new one.

    Raises Conflict when it holds something else, or, naming the pid, when a farm runs there.
    """
    folder = FarmFolder(root.absolute())
    if folder.root.exists() and not folder.root.is_dir():
        raise Conflict(f"{folder.root} is not a folder.", remedy="Give another one with --data-dir.")
    if not folder.marker.exists():
        if folder.root.exists() and any(folder.root.iterdir()):
            raise Conflict(
                f"{folder.root} holds files that are not those of a farm.",
                remedy="Give an empty or new folder with --data-dir.",
            )
        _create(folder)
    lock = _take_lock(folder)
    folder.log("any").parent.mkdir(exist_ok=True)
    return folder, lock


def forget(folder: FarmFolder) -> None:
    """Delete all state. The caller holds the lock. Raises InvalidRequest when the marker is not there."""
    if not folder.marker.is_file():
        raise InvalidRequest(f"{folder.root} carries no marker of a farm: nothing was deleted.")
    for entry in folder.root.iterdir():
        if entry.name in _KEPT_BY_FRESH:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    folder.log("any").parent.mkdir(exist_ok=True)


def read_json(path: Path) -> Any:
    """What a file holds; None when it is absent or (being written, damaged) not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Replace a file whole."""
    write_file(path, f"{json.dumps(value, indent=2)}\n".encode(), is_durable=False)


def _create(folder: FarmFolder) -> None:
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.marker.write_text(_MARKER_TEXT, encoding="utf-8")
        # A farm's folder often lies in a checkout: git must not offer its keys for a commit.
        (folder.root / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise Conflict(
            f"{folder.root} cannot be written: {error.strerror}.", remedy="Give another folder with --data-dir."
        ) from error


def _take_lock(folder: FarmFolder) -> FileLock:
    try:
        return FileLock(folder.lock)
    except Locked as locked:
        raise Conflict(
            f"A farm runs in {folder.root} already (process {locked.holder}).",
            remedy="Use it (`farmctl status`), stop it with Ctrl-C there, or start another with --data-dir.",
            pid=locked.holder,
        ) from None
