"""docs/getting-started.md is true: its files are written, its commands run, its answers compared, in its order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.acceptance.farms import ROOT, Farm, farmctl, until

pytestmark = pytest.mark.timeout(240)

PAGE = ROOT / "docs" / "getting-started.md"
FENCE = re.compile(r"^```(console|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+# exit (\d)$")


def steps() -> Iterator[tuple[str, str, list[str]]]:
    """("file", name, [text]) and ("run", command, expected lines)."""
    for kind, text in FENCE.findall(PAGE.read_text()):
        if kind != "console":
            name, _, body = text.partition("\n")
            yield "file", name.removeprefix("# "), [body]
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *expected = part.rstrip("\n").split("\n")
            yield "run", command, expected


def is_printed(expected: str, output: list[str]) -> bool:
    """Whether a line was printed; an ellipsis stands for anything, spaces for any number of them."""
    parts = [r"\s+".join(map(re.escape, piece.split())) for piece in expected.split("…")]
    pattern = re.compile(r"\s*" + r".*".join(part or "" for part in parts).replace(".*", r"\s*.*?\s*") + r".*")
    return any(pattern.fullmatch(line) for line in output)


def test_every_command_of_the_page_answers_as_it_says(farm: Farm) -> None:
    done = 0
    for kind, what, lines in steps():
        if kind == "file":
            (farm.home / what).write_text(lines[0])
            continue
        ended = EXIT.search(what)
        words = shlex.split(EXIT.sub("", what))
        assert words[0] == "farmctl"
        answer = farmctl(*words[1:], cwd=farm.home, timeout_s=90)
        assert answer.code == (int(ended.group(1)) if ended else 0), (what, answer)
        output = (answer.out + "\n" + answer.err).splitlines()
        for line in lines:
            assert is_printed(line, output), f"$ {what}\nwas to say {line!r}, and said\n" + "\n".join(output)
        done += 1
    assert done > 15
    for name in ("word-count", "sour"):
        farm.ask("remove", name)
    until(lambda: all(node["state"] == "ready" for node in farm.ask("status")["nodes"]), "all nodes to be ready")


def test_the_comparison_can_fail() -> None:
    assert is_printed("node-1  ready …", ["node-1 ready 0.4 s"])
    assert is_printed('  "words": 6', ['  "words": 6'])
    assert not is_printed("node-1 ready", ["node-2 ready"])
    assert not is_printed("word-count version 2 is deployed.", ["word-count version 1 is deployed."])
