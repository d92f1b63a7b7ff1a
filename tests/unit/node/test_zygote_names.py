"""Which replicas share a zygote."""

from __future__ import annotations

from pathlib import Path

from nodeagent.machine.programs import RuntimeFolder
from nodeagent.replicas.environments import Environment
from nodeagent.replicas.zygotes import Zygotes
from nodeagent.runner.protocol.launch import Launch


def launch(bundle: Path, **changes: object) -> Launch:
    return Launch.from_dict(
        {"replica_id": 1, "deployment": "a", "seat": 1, "version": 1, "node": "n", "folder": "f", "bundle": str(bundle)}
        | changes
    )


def zygotes(folder: Path, release: str = "1.0") -> Zygotes:
    return Zygotes(folder, RuntimeFolder(folder), lambda *_: None, release=release)


def test_replicas_of_one_version_share_a_zygote_whatever_is_theirs_alone(tmp_path: Path) -> None:
    environment, these = Environment("farm", Path("python")), zygotes(tmp_path)
    name = these.name_for(environment, launch(tmp_path))
    assert name == these.name_for(environment, launch(tmp_path, replica_id=2, seat=2, variables={"X": "1"}))
    assert name != these.name_for(environment, launch(tmp_path, environment={"X": "1"}))
    assert name != these.name_for(environment, launch(tmp_path, entry="other.py"))
    assert name != these.name_for(Environment("abc", Path("python")), launch(tmp_path))


def test_an_upgraded_daemon_forks_nothing_from_what_an_older_release_left(tmp_path: Path) -> None:
    environment = Environment("farm", Path("python"))
    older, newer = zygotes(tmp_path, "1.0"), zygotes(tmp_path, "1.1")
    assert older.name_for(environment, launch(tmp_path)) != newer.name_for(environment, launch(tmp_path))
