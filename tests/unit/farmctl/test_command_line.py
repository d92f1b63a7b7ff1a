"""Help, typos, connection settings, and farms that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer

from farmctl.exit_codes import HELP, Exit
from farmctl.main import app
from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_farm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AGENTFARM_SERVER", "AGENTFARM_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def every_verb() -> Iterator[tuple[str, ...]]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((name, inner) for inner in command.commands)
        elif name != "dev":
            yield (name,)


@pytest.mark.parametrize("words", list(every_verb()), ids=" ".join)
def test_every_verb_has_help_json_an_example_and_exit_codes(farmctl: Farmctl, words: tuple[str, ...]) -> None:
    ran = farmctl(*words, "--help")
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert f"Example: farmctl {' '.join(words)}" in flat
    assert "--json" in flat
    assert "2 cannot be placed" in flat


def test_exit_codes_are_those_of_the_design() -> None:
    assert {code.name: code.value for code in Exit} == {
        "DONE": 0, "ERROR": 1, "CANNOT_PLACE": 2, "FORCED": 3, "PARTLY": 4, "PRECONDITION": 5, "DETACHED": 130,
    }  # fmt: skip
    assert all(str(code.value) in HELP for code in Exit)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["staus"], "Did you mean 'status'"),
        (["task", "sumbit"], "Did you mean 'submit'"),
        (["status", "--jsn"], "--json"),
        (["task", "show", "one"], "valid integer"),
        (["scale", "echo"], "Missing argument"),
        (["task", "submit"], "No agent was named"),
    ],
)
def test_typo_is_exit_1_with_the_nearest_right_word(farmctl: Farmctl, words: list[str], hint: str) -> None:
    ran = farmctl(*words)
    assert ran.code == 1
    assert hint in ran.err
    as_json = farmctl(*words, "--json")
    assert hint in json.dumps(as_json.json["problem"])


def test_no_farm_known_and_none_answering_are_said_plainly(farmctl: Farmctl, tmp_path: Path) -> None:
    unknown = farmctl("status")
    assert unknown.code == 1
    assert "No farm is known here." in unknown.err
    assert "farmctl dev" in unknown.err
    (tmp_path / "token").write_text("x" * 20)
    silent = farmctl("status", "--server", "127.0.0.1:9", "--token-file", tmp_path / "token")
    assert silent.code == 1
    assert "No farm answers at http://127.0.0.1:9" in silent.err
    wrong = farmctl("status", "--server", "http://127.0.0.1:9", "--token-file", tmp_path / "nothing")
    assert "cannot be read" in wrong.err
    assert "There is no token" in farmctl("status", "--server", "http://127.0.0.1:9").err


def test_nearest_dev_farm_up_the_tree_is_found(
    farmctl: Farmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".farm").mkdir()
    (tmp_path / "token").write_text("x" * 20)
    announcement = {"server": "http://127.0.0.1:9", "token_file": str(tmp_path / "token"), "pid": 1}
    (tmp_path / ".farm" / "dev.json").write_text(json.dumps(announcement))
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert "No farm answers at http://127.0.0.1:9" in farmctl("status").err


class Stranger(BaseHTTPRequestHandler):
    """Some other web server."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"<html>not found</html>")

    def log_message(self, *args: object) -> None:
        pass


def test_what_is_no_farm_is_said_to_be_none(farmctl: Farmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("x" * 20)
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ran = farmctl(
            "status", "--server", f"http://127.0.0.1:{server.server_port}", "--token-file", tmp_path / "token"
        )
    finally:
        server.shutdown()
        server.server_close()
    assert ran.code == 1
    assert "not a farm's gateway" in ran.err


def test_help_imports_neither_httpx_nor_pydantic() -> None:
    program = (
        "import sys; from farmctl.main import run; run(['--help']); "
        "print([name for name in ('httpx', 'pydantic', 'yaml', 'agentfarm.agents.spec') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ)
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def completed(words: str) -> list[str]:
    """What a shell would offer after these words."""
    env = dict(os.environ) | {
        "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_FARMCTL_COMPLETE": "complete_bash",
    }  # fmt: skip
    program = "import sys; sys.argv[0] = 'farmctl'; from farmctl.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert not ran.stderr
    return ran.stdout.split()


def test_shell_completion_knows_verbs_and_is_silent_without_a_farm() -> None:
    assert completed("farmctl ro") == ["rollback"]
    assert completed("farmctl scale e") == []


def test_shell_completion_knows_the_names_of_the_farm(farm: ServedFarm) -> None:
    assert completed("farmctl scale e") == ["echo"]
    assert completed("farmctl drain node-") == ["node-1", "node-2"]
    assert completed("farmctl logs echo") == ["echo/0", "echo"]
