"""An operator asks whether market data is whole, breaks it, and repairs it: all through farmctl, on one farm."""

from __future__ import annotations

import base64
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.farms import Farm, farmctl, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One node with a feed from an exchange of our own, and one without."""
    made = Farm(tmp_path_factory.mktemp("fed"), "--market", "simulated", "--nodes", "2")
    try:
        if "No market data" in made.words:
            pytest.skip(f"no QuestDB on this machine: {made.words}")
        until(lambda: trades(made) > 100, "trades are stored", 90)
        yield made
        assert made.stop() == 0, made.words
    finally:
        made.end()


def endpoint(farm: Farm) -> Path:
    return farm.folder / "node-1" / "questdb" / "endpoint.json"


def sql(farm: Farm, statement: str) -> Any:
    """One statement, with the rights of the node's operator."""
    at = json.loads(endpoint(farm).read_text())
    url = f"http://{at['host']}:{at['http_port']}/exec?{urllib.parse.urlencode({'query': statement})}"
    users = base64.b64encode(f"{at['user']}:{at['password']}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {users}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer).get("dataset", [])


def trades(farm: Farm) -> int:
    """How many are stored; none while there is no QuestDB yet."""
    if not endpoint(farm).exists():
        return 0
    try:
        return int(sql(farm, "SELECT count() FROM trades")[0][0])
    except OSError:
        return 0


def test_a_healthy_farm_verifies_good_while_its_feed_runs(fed: Farm) -> None:
    answer = fed.ask("feed", "verify")
    assert {(one["node"], one["product"]) for one in answer["products"]} == {
        ("node-1", "BTC-USD"),
        ("node-1", "ETH-USD"),
    }
    assert all(one["is_good"] and one["captured"] == one["stored"] > 10 for one in answer["products"])
    assert not answer["is_partial"]
    assert "all good" in fed.ctl("feed", "verify", "BTC-USD", "--since", "1h").out
    assert fed.ask("feed", "gaps", "--open")["gaps"] == []


def test_lost_trades_are_named_and_a_replay_brings_them_back(fed: Farm) -> None:
    before = sql(fed, "SELECT trade_id FROM trades WHERE product = 'BTC-USD' ORDER BY trade_id LIMIT 20")
    sql(fed, "TRUNCATE TABLE trades")
    answer = fed.ctl("feed", "verify", "BTC-USD", "--json")
    assert answer.code == 1
    assert answer.json["products"][0]["lacking"] > 10
    assert answer.json["products"][0]["differences"][0]["what"] == "lacking"
    assert not answer.json["nodes"]["node-1"]["is_good"]
    done = fed.ask("feed", "replay", "--node", "node-1")["nodes"]["node-1"]
    assert done["rows"]["trades"] >= len(before)
    assert sql(fed, "SELECT trade_id FROM trades WHERE product = 'BTC-USD' ORDER BY trade_id LIMIT 20") == before
    assert fed.ctl("feed", "verify", "BTC-USD").code == 0


def test_a_capture_is_verified_replayed_and_compared_without_the_farm(fed: Farm, tmp_path: Path) -> None:
    capture = fed.folder / "node-1" / "capture"
    done = farmctl("feed", "verify", str(capture), "--endpoint", str(endpoint(fed)), "--json", cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    assert farmctl("feed", "compare", str(capture), str(capture), cwd=tmp_path).code == 0
    into = ("--endpoint", str(endpoint(fed)), "--product", "ETH-USD")
    done = farmctl("feed", "replay", str(capture), *into, "--json", cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    assert done.json["nodes"][""]["rows"]["trades"] > 10


def test_questions_that_cannot_be_answered_are_refused_with_the_reason(fed: Farm) -> None:
    done = fed.ctl("feed", "verify", "BTC-US")
    assert (done.code, "Did you mean 'BTC-USD'?" in done.err) == (1, True)
    done = fed.ctl("feed", "gaps", "--node", "node-2")
    assert done.code == 5
    assert "This node has no market data." in done.err
    done = fed.ctl("feed", "verify", "--node", "node-2", "--json")
    assert done.json["problem"]["code"] == "conflict"
