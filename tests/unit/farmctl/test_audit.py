"""Is market data whole: the verbs, their exit codes, and the answer to a wrong command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentfarm.errors import InvalidRequest, Unavailable
from controller.core.model import Measured, NodeName
from farmctl.display.market_answers import moment
from tests.unit.farmctl.conftest import Ran, ServedFarm
from tests.unit.gateway.test_market_questions import Feeds

Farmctl = Callable[..., Ran]
GOOD = {
    "product": "BTC-USD", "captured": 9, "stored": 9, "lacking": 0, "differing": 0, "twice": 0, "missing": 0,
    "uncaptured": 0, "open_gaps": 0, "first_trade_id": 1, "last_trade_id": 9, "holes": [], "differences": [],
    "is_good": True,
}  # fmt: skip
LACKING = GOOD | {
    "stored": 8, "lacking": 1, "is_good": False,
    "differences": [{"trade_id": 4, "what": "lacking", "captured": "buy 1 at 2, 2026", "stored": ""}],
}  # fmt: skip
DONE = {"event": "done", "is_good": True, "records": 12, "damages": [], "problems": [], "seconds": 0.5}


@pytest.fixture
def feeds(farm: ServedFarm) -> Feeds:
    """Two nodes that hold BTC-USD, and what they answer."""
    made = Feeds()

    def prepare() -> None:
        app = farm.small.app
        app.state.farm = replace(app.state.farm, services=made)
        for name in ("node-1", "node-2"):
            node = farm.small.engine.state.nodes[NodeName(name)]
            node.products, node.measured = frozenset({"BTC-USD"}), Measured(market_state="live")

    farm.do(prepare)
    return made


def lines(*answers: dict[str, object]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in answers]


def recording(path: Path, *ids: int, price: str = "100.25") -> Path:
    trade = {
        "type": "match", "side": "buy", "size": "1.5", "price": price, "product_id": "BTC-USD",
        "time": "2026-07-07T00:00:00.000000Z", "maker_order_id": "a", "taker_order_id": "b",
    }  # fmt: skip
    path.write_text("".join(json.dumps({**trade, "trade_id": i, "sequence": i}) + "\n" for i in ids))
    return path


def test_verify_of_good_data_is_exit_0_and_of_a_difference_exit_1_and_names_it(farmctl: Farmctl, feeds: Feeds) -> None:
    feeds.answers = {"node-1": lines({"event": "product"} | GOOD, DONE), "node-2": lines(DONE)}
    ran = farmctl("feed", "verify", "BTC-USD", "--json")
    assert ran.code == 0
    assert [one["node"] for one in ran.json["products"]] == ["node-1"]
    assert not ran.json["is_partial"]
    feeds.answers["node-2"] = lines({"event": "product"} | LACKING, DONE | {"is_good": False})
    ran = farmctl("feed", "verify")
    assert ran.code == 1
    assert "BTC-USD trade 4 lacking: captured buy 1 at 2, 2026" in ran.out


def test_a_node_that_does_not_answer_makes_it_partial_and_exit_4(farmctl: Farmctl, feeds: Feeds) -> None:
    feeds.answers = {"node-1": lines({"event": "product"} | GOOD, DONE), "node-2": Unavailable("It is away.")}
    ran = farmctl("feed", "verify")
    assert ran.code == 4
    assert "node-2: It is away." in ran.out
    assert "partial" in ran.out
    assert farmctl("feed", "verify", "--node", "node-2").code == 1


def test_gaps_tell_what_is_open_and_for_how_long(farmctl: Farmctl, feeds: Feeds) -> None:
    gap = {
        "event": "gap", "product": "BTC-USD", "source": "coinbase-advanced", "kind": "trade_id", "first_id": 7,
        "last_id": 8, "found_at": "2026-03-01T12:00:00.000000Z", "repaired_at": None, "open_s": 61.0,
    }  # fmt: skip
    done = {"event": "done", "gaps": 1, "open": 1, "left_out": 0}
    feeds.answers = {"node-1": lines(gap, done), "node-2": lines(done | {"gaps": 0, "open": 0})}
    ran = farmctl("feed", "gaps", "--open", "--since", "2026-03-01T00:00:00Z")
    assert ran.code == 0
    assert "open for 61 s" in ran.out
    assert feeds.asked[0][2] == {"since": "2026-03-01T00:00:00Z", "open": True}
    assert farmctl("feed", "gaps", "--json").json["gaps"][0]["last_id"] == 8


def test_replay_tells_what_was_stored(farmctl: Farmctl, feeds: Feeds) -> None:
    done = DONE | {"rows": {"trades": 1234}, "refused": 0, "damages": 0, "is_stored": True}
    feeds.answers = {"node-1": lines(done)}
    ran = farmctl("feed", "replay", "--node", "node-1", "--since", "2026-03-01", "--until", "2026-03-02")
    assert ran.code == 0
    assert "node-1: 1,234 trades stored" in ran.out
    assert feeds.asked[0][2] == {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z"}
    feeds.answers = {"node-1": lines(done | {"is_good": False, "refused": 3})}
    ran = farmctl("feed", "replay", "--node", "node-1", "--events")
    assert ran.code == 1
    assert json.loads(ran.out.splitlines()[-1])["event"] == "result"


def test_a_misspelt_product_is_answered_with_the_right_one(farmctl: Farmctl, feeds: Feeds) -> None:
    ran = farmctl("feed", "verify", "btc-usd")
    assert ran.code == 1
    assert "Did you mean 'BTC-USD'?" in ran.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("verify", "recordings/x.gz"), "There is no recordings/x.gz"),
        (("verify", "today.jsonl"), "There is no today.jsonl"),
        (("verify", "BTC-USD", "--endpoint", "e.json"), "--endpoint goes with a PATH"),
        (("verify", "BTC-USD", "--since", "yesterday"), "neither how long ago nor a time"),
        (("verify", "--sinse", "1h"), "--since"),
        (("replay",), "Neither a node, a product nor a PATH"),
        (("replay", "a.gz"), "A PATH needs --endpoint"),
        (("replay", "--node", "n", "--speed", "1"), "--speed goes with a PATH"),
        (("replay", "a.gz", "--endpoint", "e", "--speed", "fast"), "'fast' is no speed"),
        (("replay", "a.gz", "--endpoint", "e", "--node", "n"), "--node goes without a PATH"),
    ],
)
def test_a_wrong_command_line_is_refused_and_explained(farmctl: Farmctl, words: tuple[str, ...], problem: str) -> None:
    ran = farmctl("feed", *words)
    assert ran.code == 1
    assert problem in ran.err


def test_a_recording_is_verified_without_a_farm(tmp_path: Path, farmctl: Farmctl) -> None:
    whole = recording(tmp_path / "whole.jsonl", 7, 8, 9)
    ran = farmctl("feed", "verify", str(whole), "--json")
    assert (ran.code, ran.json["products"][0]["captured"]) == (0, 3)
    torn = recording(tmp_path / "torn.jsonl", 7, 9)
    ran = farmctl("feed", "verify", str(torn))
    assert ran.code == 1
    assert "never came: 8 to 8" in ran.out


def test_recordings_are_compared_without_a_farm(tmp_path: Path, farmctl: Farmctl) -> None:
    a, b = recording(tmp_path / "a.jsonl", 7, 8, 9), recording(tmp_path / "b.jsonl", 8, 9, 10)
    other = recording(tmp_path / "other.jsonl", 8, 9, price="100.26")
    assert farmctl("feed", "compare", str(a), str(b)).code == 0
    ran = farmctl("feed", "compare", str(a), str(other))
    assert ran.code == 1
    assert "BTC-USD trade 8 differing: A buy 1.5 at 100.25" in ran.out.replace("sell", "buy")
    ran = farmctl("feed", "compare", str(a), str(tmp_path / "none.jsonl"), "--json")
    assert (ran.code, ran.json["problem"]["code"]) == (1, "invalid_request")


def test_times_are_read_as_people_write_them() -> None:
    assert moment("2026-03-01T13:00:00+01:00") == "2026-03-01T12:00:00Z"
    assert moment("2026-03-01") == "2026-03-01T00:00:00Z"
    assert moment(None) is None
    now, before = moment("0s"), moment("1d")
    assert now is not None
    assert before is not None
    assert before < now
    for wrong in ("", "-1h", "9999999d", "soon"):
        with pytest.raises(InvalidRequest):
            moment(wrong)
