"""What docs/farmctl.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from farmctl.exit_codes import MEANINGS
from farmctl.main import app

PAGE = (Path(__file__).parents[3] / "docs" / "farmctl.md").read_text(encoding="utf-8")


def test_page_names_every_verb_and_no_other() -> None:
    cells = re.findall(r"^\| (`farmctl .*?) \| ", PAGE.replace("\\|", "¦"), re.MULTILINE)
    listed = {word for cell in cells for word in re.findall(r"`(?:farmctl )?(?:task |node |feed )?([a-z]+)", cell)}
    group = typer.main.get_command(app)
    verbs = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        verbs |= set(inner) if inner is not None else {name}
    assert listed == verbs


def test_page_tells_every_exit_code() -> None:
    listed = dict(re.findall(r"^\| (\d+) \| ([^:|]*)", PAGE, re.MULTILINE))
    assert {int(code) for code in listed} == {int(code) for code in MEANINGS}
