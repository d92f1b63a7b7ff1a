"""docs/writing-an-agent.md is true: its agents run, its settings are the defaults, its messages are ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from agentfarm.agents.notation import read_spec
from agentfarm.agents.sources import find_agents
from agentfarm.agents.spec import AgentSpec
from agentfarm.sdk.testing import FarmRun, farm_run, load

GUIDE = Path(__file__).parents[3] / "docs" / "writing-an-agent.md"


def files() -> dict[str, str]:
    """The code blocks of the guide that begin with the name of a file."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return dict(blocks)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "agent.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTFARM_LLM_URL", raising=False)
    return tmp_path


def test_all_agents_of_the_guide_are_found_and_load(folder: Path) -> None:
    names = {agent.name for agent in find_agents(folder)}
    assert names == {"by-hand", "greeter", "last-price", "planner", "progress", "summary"}
    for name in names:
        assert load(folder / f"{name.replace('-', '_')}.py").schemas()["input"]["properties"]


def test_the_agents_do_what_the_guide_says(folder: Path) -> None:
    assert farm_run("greeter.py", {"name": "Ada", "times": 2}).output == "hello, hello Ada"
    progress: FarmRun = farm_run("progress.py", {"steps": 2})
    assert (progress.output, progress.pieces) == ("ready", [{"done": 0}, {"done": 1}])
    assert farm_run("by_hand.py", {"number": 4}).output == 8
    assert farm_run("summary.py", {"text": "The farm runs."}).output


def test_the_tests_of_the_guide_pass(folder: Path) -> None:
    names: dict[str, object] = {}
    exec((folder / "test_agents.py").read_text(), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        assert callable(test)
        test()


def test_the_settings_of_the_guide_are_all_there_are_with_their_defaults() -> None:
    text = files()["agent.yaml"]
    written = read_spec(text)
    assert written == AgentSpec(name="market-brief", entry="agent.py")
    keys = yaml.safe_load(text)
    assert keys.keys() == AgentSpec.model_fields.keys()
    for section in ("resources", "retries", "timeouts", "placement"):
        assert len(keys[section]) == len(type(getattr(written, section)).model_fields)
