"""Reading logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nodeagent.replicas.logs import last_lines, read_log
from nodeagent.runner.protocol.output_log import KEPT_FILES, rotate


async def test_the_tail_reaches_back_into_rotated_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\n")
    rotate(log)
    log.write_text("three\nfour")
    assert last_lines(log, 3) == ["two", "three", "four"]
    assert last_lines(log, 99) == ["one", "two", "three", "four"]
    assert last_lines(log, 0) == []
    pieces = [piece async for piece in read_log(log, 2, follow=False)]
    assert b"".join(pieces) == b"three\nfour\n"


async def test_following_joins_a_line_that_was_half_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("whole\nha")
    following = read_log(log, 10, follow=True)
    assert await anext(following) == b"whole\n"
    with log.open("a") as file:
        file.write("lf\n")
    assert await asyncio.wait_for(anext(following), 60) == b"half\n"
    rotate(log)
    log.write_text("new\n")
    assert await asyncio.wait_for(anext(following), 60) == b"new\n"
    await following.aclose()  # type: ignore[attr-defined]


async def test_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await anext(read_log(tmp_path / "none", 1, follow=False))
    assert last_lines(tmp_path / "none", 5) == []


def test_only_so_many_rotated_files_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number in range(6):
        log.write_text(str(number))
        rotate(log)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"log.{n}" for n in range(1, KEPT_FILES + 1)]
    assert (tmp_path / "log.1").read_text() == "5"
