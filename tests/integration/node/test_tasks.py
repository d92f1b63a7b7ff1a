"""A daemon, real replicas, a scripted controller: attempts in, results out."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted

ECHO = "async def main(input):\n    return {'got': input}\n"
HOLD = """
import asyncio, pathlib
async def main(input):
    pathlib.Path(input).touch()
    await asyncio.sleep(600)
"""


async def test_attempts_are_run_and_their_results_delivered(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO), concurrency=4))
    await controller.until_running(1)
    await controller.assign(*(task(token, 1, token) for token in range(1, 101)))
    await controller.until(lambda: len(controller.results) == 100)
    assert {result.outcome for result in controller.results} == {wire.OUTCOME_SUCCEEDED}
    assert {json.loads(result.output)["got"] for result in controller.results} == set(range(1, 101))
    assert controller.replicas[1].ready_ms > 0


async def test_no_more_attempts_run_at_once_than_the_spec_says(node: Node, controller: ScriptedController) -> None:
    agent = """
import asyncio
running = most = 0
async def main(input):
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.01)
    running -= 1
    return most
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent), concurrency=3))
    await controller.until_running(1)
    await controller.assign(*(task(token, 1) for token in range(1, 21)))
    await controller.until(lambda: len(controller.results) == 20)
    assert max(int(result.output) for result in controller.results) == 3


async def test_what_an_agent_raises_is_told_with_its_own_traceback(node: Node, controller: ScriptedController) -> None:
    agent = "def main(input):\n    return broken(input)\n\ndef broken(x):\n    raise ValueError(f'bad {x}')\n"
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "thing"))
    result = await controller.result_of(1)
    assert (result.outcome, result.error_type, result.error_message) == (wire.OUTCOME_FAILED, "ValueError", "bad thing")
    assert "in broken" in result.error_traceback
    assert "nodeagent/runner/replica/runtime.py" not in result.error_traceback


async def test_sys_exit_ends_the_attempt_and_not_the_replica(node: Node, controller: ScriptedController) -> None:
    agent = "import sys\ndef main(input):\n    if input == 'exit':\n        sys.exit(3)\n    return 'fine'\n"
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await controller.assign(task(1, 1, "exit"), task(2, 1, "go"))
    assert (await controller.result_of(1)).error_type == "SystemExit"
    assert json.loads((await controller.result_of(2)).output) == "fine"
    assert controller.replicas[1].pid == pid


async def test_output_that_is_too_large_or_no_json_fails_the_attempt(
    node: Node, controller: ScriptedController
) -> None:
    agent = "async def main(input):\n    return 'x' * 2_000_000 if input == 'large' else float('nan')\n"
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, "large"), task(2, 1, "nan"))
    assert (await controller.result_of(1)).error_type == "OutputTooLarge"
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_FAILED


async def test_pieces_of_output_arrive_in_order_before_the_result(node: Node, controller: ScriptedController) -> None:
    agent = """
from agentfarm.sdk import emit
async def main(input):
    for number in range(20):
        emit({"n": number})
    return "end"
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(7, 1))
    await controller.result_of(7)
    assert [piece.seq for piece in controller.outputs] == list(range(1, 21))
    assert [json.loads(piece.data)["n"] for piece in controller.outputs] == list(range(20))


async def test_an_attempt_that_runs_too_long_is_told_to_end(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=HOLD)))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await controller.assign(task(1, 1, str(tmp_path / "begun"), run_timeout_ms=300))
    result = await controller.result_of(1)
    assert (result.outcome, result.error_type) == (wire.OUTCOME_TIMED_OUT, "TimedOut")
    assert controller.replicas[1].pid == pid  # it ended when it was told to: no need to kill anything


async def test_a_replica_that_does_not_let_go_is_killed_with_its_thread(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    agent = "import time\ndef main(input):\n    while True:\n        time.sleep(0.05)\n"
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent), concurrency=2, timeouts={"shutdown_s": 0.3}))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await controller.assign(task(1, 1), task(2, 1))
    await controller.until(lambda: set(controller.started) == {1, 2})
    await controller.send(cancel_attempts=wire.CancelAttempts(tokens=[1], reason=wire.CANCEL_REASON_REQUESTED))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_CANCELLED
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_INTERRUPTED  # a bystander: not its fault
    assert not Path(f"/proc/{pid}").exists()
    await controller.until(lambda: controller.replicas[1].pid not in (0, pid))


async def test_cancel_of_waiting_and_of_running_attempts(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=HOLD)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, str(tmp_path / "a")), task(2, 1, str(tmp_path / "b")))
    await controller.until(lambda: 1 in controller.started)
    await controller.send(cancel_attempts=wire.CancelAttempts(tokens=[1, 2], reason=wire.CANCEL_REASON_REQUESTED))
    for token in (1, 2):
        assert (await controller.result_of(token)).outcome == wire.OUTCOME_CANCELLED
    assert not (tmp_path / "b").exists()


BLOCK = """
import pathlib, time
def main(input):
    pathlib.Path(input).touch()
    while input.endswith("long") and not pathlib.Path(input + ".gate").exists():
        time.sleep(0.02)
async def main_async(input):  # blocks the loop itself
    main(input)
"""


@pytest.mark.parametrize("entry", ["agent.py:main", "agent.py:main_async"])
async def test_recalled_work_that_was_not_begun_is_given_back_at_once(
    node: Node, controller: ScriptedController, tmp_path: Path, entry: str
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=BLOCK), entry=entry))
    await controller.until_running(1)
    await controller.assign(
        task(1, 1, str(tmp_path / "long")), *(task(i, 1, str(tmp_path / str(i))) for i in (2, 3, 4))
    )
    await controller.until((tmp_path / "long").exists)
    await controller.send(recall_attempts=wire.RecallAttempts(tokens=[1, 2, 3, 99]))
    for token in (2, 3):
        result = await controller.result_of(token)
        assert (result.outcome, result.error_type) == (wire.OUTCOME_INTERRUPTED, "GivenBack")
    assert 1 not in {result.fencing_token for result in controller.results}, "what was begun goes on"
    (tmp_path / "long.gate").touch()
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED
    assert (await controller.result_of(4)).outcome == wire.OUTCOME_SUCCEEDED, "it was not recalled"
    assert not (tmp_path / "2").exists()
    assert not (tmp_path / "3").exists()
    assert [result.fencing_token for result in controller.results].count(2) == 1


async def test_what_has_ended_is_told_while_the_next_attempt_blocks_the_loop(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    agent = """
import pathlib, time
async def main(input):
    while input and not pathlib.Path(input).exists():
        time.sleep(0.02)
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1), task(2, 1, str(tmp_path / "gate")))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_SUCCEEDED
    assert [result.fencing_token for result in controller.results] == [1]
    (tmp_path / "gate").touch()
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_SUCCEEDED


async def test_what_was_given_back_is_told_again_to_a_new_daemon_until_it_is_kept(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=HOLD)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, str(tmp_path / "a")), task(2, 1, str(tmp_path / "b")))
    await controller.until(lambda: 1 in controller.started)
    controller.acknowledges = False
    await controller.send(recall_attempts=wire.RecallAttempts(tokens=[2]))
    await controller.result_of(2)
    await node.kill()
    await node.start()
    await controller.until(lambda: len(controller.hellos) == 2)
    assert set(controller.hellos[1].running_tokens) == {1}
    await controller.until(lambda: [result.fencing_token for result in controller.results].count(2) == 2)
    assert not (tmp_path / "b").exists()


async def test_stale_attempts_end_and_nothing_is_told_of_them(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=HOLD), concurrency=2))
    await controller.until_running(1)
    await controller.assign(task(1, 1, str(tmp_path / "a")), task(2, 1, str(tmp_path / "b")))
    await controller.until(lambda: set(controller.started) == {1, 2})
    await controller.send(cancel_attempts=wire.CancelAttempts(tokens=[1], reason=wire.CANCEL_REASON_STALE))
    await controller.send(cancel_attempts=wire.CancelAttempts(tokens=[2], reason=wire.CANCEL_REASON_MOVED))
    assert (await controller.result_of(2)).outcome == wire.OUTCOME_INTERRUPTED
    controller.break_stream()
    await controller.until(lambda: len(controller.hellos) == 2)
    assert not controller.hellos[1].running_tokens
    assert [result.fencing_token for result in controller.results] == [2]


async def test_work_for_a_replica_that_takes_none_comes_back_at_once(
    node: Node, controller: ScriptedController
) -> None:
    await node.start()
    await controller.assign(task(1, 99))
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_INTERRUPTED


async def test_attempts_of_a_silent_controller_stop_if_they_are_exclusive(
    node: Node, controller: ScriptedController, tmp_path: Path
) -> None:
    controller.stop_exclusive_after_ms = 3_000
    controller.beat_interval_ms = 1_000  # a silent stream is kept for longer: the next Welcome would renew the lease
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=HOLD), concurrency=2))
    await controller.until_running(1)
    await controller.assign(
        task(1, 1, str(tmp_path / "a"), exclusive=True), task(2, 1, str(tmp_path / "b"), exclusive=False)
    )
    await controller.until(lambda: set(controller.started) == {1, 2})
    controller.answers_beats = False
    assert (await controller.result_of(1)).outcome == wire.OUTCOME_INTERRUPTED
    assert not [result for result in controller.results if result.fencing_token == 2]


@pytest.mark.parametrize("is_0_1", [False, True], ids=["this_release", "beside_0_1"])
async def test_checkpoints_travel_both_ways_and_a_stale_lease_is_told(
    node: Node, controller: ScriptedController, is_0_1: bool
) -> None:
    controller.is_0_1 = is_0_1
    graph = """
from typing import TypedDict
from langgraph.graph import StateGraph, START, END
class State(TypedDict):
    n: int
builder = StateGraph(State)
builder.add_node("one", lambda state: {"n": state["n"] + 1})
builder.add_node("two", lambda state: {"n": state["n"] * 10})
builder.add_edge(START, "one")
builder.add_edge("one", "two")
builder.add_edge("two", END)
graph = builder.compile()
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=graph)))
    await controller.until_running(1)
    await controller.assign(task(1, 1, {"n": 1}, thread_id="thread-1"))
    result = await controller.result_of(1)
    assert json.loads(result.output)["n"] == 20, result
    assert {request.fencing_token for request in controller.checkpoints} == {1}
    assert {request.checkpoint.thread_id for request in controller.checkpoints} == {"thread-1"}
    assert {(call.task_id, call.fencing_token, call.replica_id) for call in controller.calls} == (
        set() if is_0_1 else {(1, 1, 1)}
    )
    controller.stale_tokens.add(2)
    await controller.assign(task(2, 1, {"n": 1}, thread_id="thread-2"))
    assert (await controller.result_of(2)).error_type == "LeaseLost"


async def test_checkpoint_call_that_a_broken_stream_cut_off_is_made_again(
    node: Node, controller: ScriptedController
) -> None:
    """The controller reads its state again: it ends streams, and the calls beside them get no answer."""
    graph = """
from typing import TypedDict
from langgraph.graph import StateGraph, START, END
class State(TypedDict):
    n: int
builder = StateGraph(State)
builder.add_node("one", lambda state: {"n": state["n"] + 1})
builder.add_edge(START, "one")
builder.add_edge("one", END)
graph = builder.compile()
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=graph)))
    await controller.until_running(1)
    controller.calls_wait, asked = True, controller.calls_asked
    await controller.assign(task(1, 1, {"n": 1}, thread_id="thread-1"))
    await controller.until(lambda: controller.calls_asked > asked)
    controller.calls_wait = False
    controller.break_stream()
    await controller.until(lambda: len(controller.hellos) == 2)
    assert json.loads((await controller.result_of(1)).output)["n"] == 2


async def test_farm_variables_reach_the_agent(node: Node, controller: ScriptedController) -> None:
    agent = "import os\nasync def main(input):\n    return dict(os.environ)\n"
    await node.start()
    await controller.desire(wanted(3, controller.bundle(agent=agent), environment={"MINE": "yes"}))
    await controller.until_running(3)
    await controller.assign(task(1, 3))
    said = json.loads((await controller.result_of(1)).output)
    assert said["AGENTFARM_AGENT"] == "agent"
    assert said["AGENTFARM_REPLICA"] == "agent/3"
    assert said["AGENTFARM_NODE"] == "node-1"
    assert said["MINE"] == "yes"


async def test_a_blocked_loop_is_seen_although_it_answers(node: Node, controller: ScriptedController) -> None:
    agent = "import time\nasync def main(input):\n    time.sleep(12.5)\n    return 'woke'\n"
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    await controller.assign(task(1, 1))
    status = await controller.until_state(1, wire.REPLICA_STATE_UNHEALTHY)
    assert status.reason == "unhealthy"
    assert "blocked" in status.detail
    assert json.loads((await controller.result_of(1)).output) == "woke"
    await controller.until_state(1, wire.REPLICA_STATE_RUNNING)


async def test_connections_of_a_replica_are_not_held_open_by_its_children(
    node: Node, controller: ScriptedController
) -> None:
    """A child of the agent inherits its descriptors; the death of the replica must be seen all the same."""
    agent = """
import os, time
async def main(input):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os._exit(7)
"""
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=agent)))
    await controller.until_running(1)
    pid = controller.replicas[1].pid
    await controller.assign(task(1, 1))
    result = await controller.result_of(1)
    assert result.error_type == "ReplicaCrashed"
    assert "exited with code 7" in result.error_message
    await controller.until(lambda: controller.replicas[1].pid not in (0, pid))
    assert os.getpgid(controller.replicas[1].pid) == controller.replicas[1].pid
    await asyncio.sleep(0)
    left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == pid]
    assert not left


def _group(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except OSError:
        return 0
