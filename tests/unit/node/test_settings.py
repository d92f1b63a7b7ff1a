"""Settings: the file, the environment, the second step of the start."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from agentfarm.errors import InvalidRequest
from nodeagent.replicas.environments import GRAPH_MODULES, environment_name, modules_to_share
from nodeagent.services.market.programs import feed_settings
from nodeagent.services.market.settings import MarketSettings, market_kind
from nodeagent.settings import NodeSettings
from nodeagent.start import load_settings

YAML = """
data_dir: /var/lib/agentfarm
link: controller.lan:8601
labels: {rack: a1}
market:
  products: [BTC-USD]
  feed: {ws_url: "ws://127.0.0.1:1"}
llm: {url: "http://gpu:8000/v1", key_file: /etc/key, roles: {smart: big}}
"""


def test_settings_survive_the_way_to_the_daemon(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(YAML)
    settings = load_settings(config, None)
    assert settings.market == MarketSettings(products=("BTC-USD",), feed={"ws_url": "ws://127.0.0.1:1"})
    assert NodeSettings.from_dict(json.loads(json.dumps(asdict(settings), default=str))) == settings


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(YAML)
    monkeypatch.setenv("AGENTFARM_GPUS", "2")
    monkeypatch.setenv("AGENTFARM_DATA_DIR", "/elsewhere")
    settings = load_settings(config, tmp_path)
    assert (settings.gpus, settings.data_dir) == (2, tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [("log_format: xml", "log_format"), ("link: nowhere", "link"), ("gpus: -1", "gpus"), ("labls: {}", "labels")],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"data_dir: /x\n{text}\n")
    with pytest.raises(InvalidRequest, match=named):
        load_settings(config, None)


def test_the_feed_is_told_where_things_lie_and_what_a_person_set() -> None:
    settings = MarketSettings(products=("BTC-USD",), feed={"ws_url": "ws://127.0.0.1:1", "book_depth": 10})
    told = feed_settings(settings, Path("/node"), settings.products)
    assert told["book_depth"] == 10
    assert told["endpoint_file"] == "/node/questdb/endpoint.json"
    assert told["products"] == ["BTC-USD"]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (MarketSettings(), "live"),
        (MarketSettings(feed={"ws_url": "ws://127.0.0.1:1"}), "simulated"),
        (MarketSettings(feed={"ws_url": "ws://127.0.0.1:1"}, kind="capture"), "capture"),
        (MarketSettings(feed={"ws_url": "wss://exchange.example"}), "live"),
        (MarketSettings(feed={"source": "capture", "recording": "x.gz"}), "capture"),
    ],
)
def test_a_market_says_what_it_is(settings: MarketSettings, kind: str) -> None:
    assert market_kind(settings) == kind


def test_only_agents_that_use_langgraph_are_forked_from_it(tmp_path: Path) -> None:
    plain, graph = tmp_path / "plain", tmp_path / "graph"
    for folder in (plain, graph / "parts"):
        folder.mkdir(parents=True)
    (plain / "agent.py").write_text("async def main(x):\n    return 'import langgraph'\n")
    (graph / "parts" / "graph.py").write_text("if True:\n    from langgraph.graph import StateGraph\n")
    assert modules_to_share(plain) == ()
    assert modules_to_share(graph) == GRAPH_MODULES


def test_environments_are_named_by_what_they_hold() -> None:
    assert environment_name(b"a==1\n") == environment_name(b"a==1\n") != environment_name(b"a==2\n")
