"""The farm's folder: one farm in it, and nothing of anybody else ever deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentfarm.errors import Conflict, InvalidRequest
from farmctl.dev.folder import FarmFolder, forget, open_folder, read_json, write_json


def test_second_farm_in_the_folder_is_refused_with_the_pid(tmp_path: Path) -> None:
    _, lock = open_folder(tmp_path / ".farm")
    with pytest.raises(Conflict, match=f"process {os.getpid()}"):
        open_folder(tmp_path / ".farm")
    lock.release()
    _, again = open_folder(tmp_path / ".farm")
    again.release()


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Conflict, match="not those of a farm"):
        open_folder(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".farm").write_text("")
    with pytest.raises(Conflict, match="is not a folder"):
        open_folder(tmp_path / ".farm")


def test_forgetting_needs_the_marker(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(InvalidRequest, match="nothing was deleted"):
        forget(FarmFolder(tmp_path))
    assert (tmp_path / "precious").read_text() == "kept"


def test_forgetting_keeps_marker_and_lock_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    folder, lock = open_folder(tmp_path / ".farm")
    (folder.controller / "postgres").mkdir(parents=True)
    (folder.root / "link").symlink_to(outside)
    forget(folder)
    assert {entry.name for entry in folder.root.iterdir()} == {".agentfarm-dev", ".gitignore", "lock", "logs"}
    assert (outside / "precious").read_text() == "kept"
    with pytest.raises(Conflict):
        open_folder(folder.root)
    lock.release()


def test_git_is_offered_nothing_of_the_folder(tmp_path: Path) -> None:
    folder, lock = open_folder(tmp_path / ".farm")
    assert (folder.root / ".gitignore").read_text() == "*\n"
    lock.release()


def test_a_damaged_file_reads_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    write_json(path, {"pid": 1})
    assert read_json(path) == {"pid": 1}
    path.write_text('{"pid": ')
    assert read_json(path) is None
    assert read_json(tmp_path / "absent") is None
