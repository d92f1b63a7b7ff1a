"""`farmctl task …` from the command line to the core and back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentfarm.errors import Unavailable
from farmctl.api.client import FarmClient
from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]
pytestmark = pytest.mark.usefixtures("farm")


def test_submit_prints_the_id_and_wait_the_result(farmctl: Farmctl) -> None:
    first = farmctl("task", "submit", "echo", '{"a": 1}')
    assert (first.code, first.out) == (0, "task 1\n")
    waited = farmctl("task", "submit", "echo", "product=BTC-USD", "depth=5", "--wait")
    assert (waited.code, json.loads(waited.out)) == (0, {"product": "BTC-USD", "depth": 5})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["What is this?"], "What is this?"),
        (["17"], 17),
        (["[1, 2]"], [1, 2]),
        (['{"a": 1}', "b=true"], {"a": 1, "b": True}),
        ([], None),
        (["text=a=b"], {"text": "a=b"}),
    ],
)
def test_input_is_read_as_a_person_means_it(farmctl: Farmctl, words: list[str], expected: object) -> None:
    assert farmctl("task", "submit", "echo", *words, "--wait").json == expected


def test_input_comes_from_stdin_and_files(farmctl: Farmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "stdin"}'))
    assert farmctl("task", "submit", "echo", "-", "--wait").json == {"from": "stdin"}
    (tmp_path / "input.json").write_text("[3]")
    assert farmctl("task", "submit", "echo", f"@{tmp_path}/input.json", "--wait").json == [3]
    lost = farmctl("task", "submit", "echo", "@/nowhere.json")
    assert (lost.code, "cannot be read" in lost.err) == (1, True)


def test_broken_json_is_answered_with_the_place(farmctl: Farmctl) -> None:
    broken = farmctl("task", "submit", "echo", '{"a": }')
    assert broken.code == 1
    assert "is not JSON" in broken.err
    assert "column 7" in broken.err


def test_unknown_agent_is_answered_with_the_nearest(farmctl: Farmctl) -> None:
    lost = farmctl("task", "submit", "ehco")
    assert lost.code == 1
    assert "Did you mean 'echo'?" in lost.err
    as_json = farmctl("task", "submit", "ehco", "--json")
    assert as_json.json["problem"]["code"] == "not_found"


def test_failed_task_is_exit_1_with_its_error(farmctl: Farmctl) -> None:
    failed = farmctl("task", "submit", "fail", "--wait")
    assert failed.code == 1
    assert "ValueError: it fails" in failed.out
    shown = farmctl("task", "show", "1")
    assert "Traceback: it fails" in shown.out
    assert farmctl("task", "list", "--state", "dead", "--json").json["tasks"][0]["id"] == 1


def test_stream_prints_pieces_then_the_result(farmctl: Farmctl) -> None:
    ran = farmctl("task", "submit", "stream", "7", "--stream", "--events")
    assert (ran.code, ran.events[0]["event"]) == (0, "task.submitted")
    assert [event["data"] for event in ran.events if event["event"] == "output"] == ["one", "two", "three"]
    assert ran.events[-1]["result"]["output"] == 7
    assert farmctl("task", "submit", "stream", "7", "--stream").out == "one\ntwo\nthree\n7\n"
    assert farmctl("task", "submit", "strm", "--stream").code == 1


def test_wait_for_several_is_partly_done_when_one_failed(farmctl: Farmctl) -> None:
    farmctl("task", "submit", "echo", "--wait")
    farmctl("task", "submit", "fail", "--wait")
    assert farmctl("task", "wait", "1", "2").code == 4
    assert farmctl("task", "wait", "1").code == 0


def test_wait_ends_at_its_timeout(farmctl: Farmctl) -> None:
    farmctl("task", "submit", "slow")
    late = farmctl("task", "wait", "1", "--timeout", "0.05")
    assert late.code == 1
    assert "not ended yet" in late.out


def test_ctrl_c_detaches_and_says_how_to_look_again(
    farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    farmctl("task", "submit", "slow")
    monkeypatch.setattr("farmctl.verbs.tasks._wait_one", interrupted)
    left = farmctl("task", "wait", "1")
    assert left.code == 130
    assert "farmctl task wait 1" in left.err
    assert farm.do(lambda: len(farm.small.engine.state.tasks)) == 1


def test_cancel_and_retry(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("task", "submit", "slow")
    assert farmctl("task", "cancel", "1").code == 0
    assert farmctl("task", "wait", "1", "--json").json["state"] == "cancelled"
    again = farmctl("task", "retry", "1", "--json")
    assert again.json[0]["retry_of"] == 1
    early = farmctl("task", "retry", "2")
    assert early.code == 5
    assert "cancel it first" in early.err


def test_batch_submits_every_line_once(farmctl: Farmctl, tmp_path: Path, farm: ServedFarm) -> None:
    path = tmp_path / "tasks.ndjson"
    path.write_text('{"input": 1}\n{broken\n\n{"agent": "nobody"}\n{"agent": "echo", "input": 2}\n')
    ran = farmctl("task", "submit", "echo", "--batch", path, "--json")
    assert (ran.code, ran.json["accepted"], ran.json["refused"]) == (4, 2, 2)
    in_words = farmctl("task", "submit", "echo", "--batch", path)
    assert "line 2: The line is not JSON" in in_words.err
    assert "2 tasks accepted" in in_words.out
    assert len(farmctl("task", "list", "--json").json["tasks"]) == 4


def test_list_says_when_there_are_none(farmctl: Farmctl) -> None:
    assert farmctl("task", "list").out == "No tasks.\n"


def test_submit_outlasts_a_database_that_is_away_for_a_moment(
    farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.small.engine.refusal = Unavailable("PostgreSQL cannot be reached.")
    naps = 0

    def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 3:
            farm.small.engine.refusal = None

    monkeypatch.setattr(FarmClient.__init__, "__defaults__", (nap,))
    ran = farmctl("task", "submit", "echo", "5", "--wait")
    assert (ran.code, ran.json) == (0, 5)
    assert farm.do(lambda: len(farm.small.memory.inputs)) == 1


def test_submit_gives_up_with_words_when_it_stays_away(
    farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.small.engine.refusal = Unavailable("PostgreSQL cannot be reached.")
    monkeypatch.setattr(FarmClient.__init__, "__defaults__", (lambda seconds: None,))
    ran = farmctl("task", "submit", "echo")
    assert (ran.code, "PostgreSQL cannot be reached." in ran.err) == (1, True)


def test_broken_stream_is_taken_up_where_it_broke(
    farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = farm.small.engine

    def first_life() -> None:
        engine.watchers.piece(1, b'"before"')
        engine.watchers.end_all()  # as when the engine reads its state again; pieces are lost, the task is not

    def second_life() -> None:
        engine.watchers.piece(1, b'"after"')
        farm.small.nodes[engine.state.tasks[1].node].release()

    steps = [first_life, second_life]

    def pieces(self: FarmClient, *args: object, **more: object) -> object:
        for event in real_post_events(self, *args, **more):
            yield event
            if event.event == "state" and json.loads(event.data)["state"] == "running":
                farm.do(steps.pop(0))
                raise Unavailable("The connection broke.")

    def again(self: FarmClient, *args: object, **more: object) -> object:
        for event in real_events(self, *args, **more):
            yield event
            if event.event == "state":
                farm.do(steps.pop(0))

    real_post_events, real_events = FarmClient.post_events, FarmClient.events
    monkeypatch.setattr(FarmClient, "post_events", pieces)
    monkeypatch.setattr(FarmClient, "events", again)
    ran = farmctl("task", "submit", "slow", "5", "--stream")
    assert (ran.code, ran.out.splitlines()[-2:]) == (0, ["after", "5"])
    assert farm.do(lambda: len(farm.small.memory.inputs)) == 1
