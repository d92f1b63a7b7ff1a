"""Nodes: cordon, invite, and a drain that tells the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from controller.core.commands import ReplicaNews, ReplicasReported, Tick, Uncordon
from controller.core.lives import ReplicaState
from controller.core.model import OPERATOR
from farmctl.api.session import Session
from tests.unit.farmctl.conftest import Ran, ServedFarm

Farmctl = Callable[..., Ran]


def test_list_show_and_marks(farmctl: Farmctl, farm: ServedFarm) -> None:
    listed = farmctl("node", "list")
    assert "node-1" in listed.out
    assert max(map(len, listed.out.splitlines())) <= 80
    assert farmctl("cordon", "node-1", "--reason", "new disk").out == "node-1 takes no new replicas.\n"
    shown = farmctl("node", "show", "node-1")
    assert "new disk" in shown.out
    assert farmctl("node", "uncordon", "node-1").code == 0
    lost = farmctl("node", "show", "nod-1")
    assert "Did you mean 'node-1'?" in lost.err


def test_invite_prints_the_command_to_run(farmctl: Farmctl, farm: ServedFarm) -> None:
    ran = farmctl("node", "invite", "node-9")
    assert "agentfarm-node join token-of-node-9\n" in ran.out
    assert farmctl("node", "invite", "Node 9").code == 1
    assert farmctl("node", "forget", "node-9").code == 0


def test_drain_empties_the_node_and_says_so(farmctl: Farmctl, farm: ServedFarm) -> None:
    ran = farmctl("drain", "node-1", "--deadline", "30s")
    assert ran.code == 0
    assert "node-1 is empty: no process of the farm remains there." in ran.out
    assert farmctl("node", "show", "node-1", "--json").json["replica_count"] == 0


def test_drain_that_does_not_fit_is_exit_2_and_changes_nothing(farmctl: Farmctl, farm: ServedFarm) -> None:
    ran = farmctl("drain", "node-1", "node-2")
    assert ran.code == 2
    assert "nowhere" in ran.out
    assert "where echo could go" in ran.out
    assert "nothing was changed" in ran.err
    assert farmctl("node", "show", "node-1", "--json").json["drain"] is None
    assert farmctl("drain", "node-1", "node-2", "--plan").code == 2


def test_drain_waits_for_the_word_of_the_daemon(
    farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = farm.small.nodes["node-1"]
    node.stays_silent = True
    looks = 0

    def confirm() -> None:
        news = [ReplicaNews(r, ReplicaState.STOPPED) for r in sorted(farm.small.engine.state.nodes[node.name].replicas)]
        farm.small.engine.do(ReplicasReported(node.name, 1, tuple(news)))

    def slept(session: Session, seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            farm.do(confirm)

    monkeypatch.setattr(Session, "sleep", slept)
    ran = farmctl("drain", "node-1", "--deadline", "60s", "--events")
    assert ran.code == 0
    assert looks >= 5
    messages = [event["message"] for event in ran.events if event["event"] == "drain.progress"]
    assert "empty, its daemon confirms" in messages[-1]
    assert "empty" not in messages[0]


def test_drain_that_hits_its_deadline_is_exit_3(farmctl: Farmctl, farm: ServedFarm) -> None:
    farmctl("scale", "slow", 2)
    for _ in range(2):
        farmctl("task", "submit", "slow")
    busy = farmctl("task", "show", "1", "--json").json["node"]

    ticking = farm.do(lambda: _tick_often(farm))
    ran = farmctl("drain", busy, "--deadline", "0.2s")
    farm.do(ticking)
    assert ran.code == 3
    assert "interrupted" in ran.out


def _tick_often(farm: ServedFarm) -> Callable[[], None]:
    """Let time pass for the core, as the engine does."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.02)
            farm.small.engine.do(Tick())

    task = asyncio.get_running_loop().create_task(tick())

    def stop() -> None:
        task.cancel()

    return stop


def test_drain_ended_by_somebody_is_exit_5(farmctl: Farmctl, farm: ServedFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    node = farm.small.nodes["node-1"]
    node.stays_silent = True
    monkeypatch.setattr(
        Session,
        "sleep",
        lambda session, seconds: farm.do(lambda: farm.small.engine.do(Uncordon(node.name, actor=OPERATOR))),
    )
    assert farmctl("drain", "node-1").code == 5


def test_zero_deadline_is_refused(farmctl: Farmctl, farm: ServedFarm) -> None:
    assert farmctl("drain", "node-1", "--deadline", "0s").code == 1
    wrong = farmctl("drain", "node-1", "--deadline", "soon")
    assert (wrong.code, "not a duration" in wrong.err) == (1, True)
