"""A daemon, real replicas, a scripted controller: attempts in, results out."""

from __future__ import annotations

import json

from agentfarm.wire import link_pb2 as wire
from tests.integration.node.conftest import Node
from tests.integration.node.controller import ScriptedController, task, wanted

ECHO = "async def main(input):\n    return {'got': input}\n"


async def test_attempts_are_run_and_their_results_delivered(node: Node, controller: ScriptedController) -> None:
    await node.start()
    await controller.desire(wanted(1, controller.bundle(agent=ECHO), concurrency=4))
    await controller.until_running(1)
    await controller.assign(*(task(token, 1, token) for token in range(1, 101)))
    await controller.until(lambda: len(controller.results) == 100)
    assert {result.outcome for result in controller.results} == {wire.OUTCOME_SUCCEEDED}
    assert {json.loads(result.output)["got"] for result in controller.results} == set(range(1, 101))
    assert controller.replicas[1].ready_ms > 0
