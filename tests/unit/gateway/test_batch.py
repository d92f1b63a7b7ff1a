"""A batch that is refused line by line leaves everybody else their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from agentfarm.errors import NotFound
from controller.core.model import OPERATOR
from controller.gateway import prefixes
from controller.gateway.http.limits import UNKNOWN_AGENTS_MAX
from controller.gateway.tasks import batch, submission
from controller.gateway.tasks.batch import submit_batch
from tests.unit.gateway.small_farm import SmallFarm


async def body(*lines: bytes) -> AsyncIterator[bytes]:
    """All at once: nothing of it waits."""
    yield b"\n".join(lines)


async def test_others_have_their_turn_while_lines_are_refused(
    small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_SLICE_S", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    answer = await submit_batch(small.app.state.farm, body(*[b'{"agent": "absent"}'] * 500), OPERATOR)
    beside.cancel()
    assert len(answer.splitlines()) == 500
    assert turns >= 500, "one turn between two slices"


async def test_an_unknown_agent_is_looked_up_once_and_named_on_each_line(
    small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    def counted(state: object, given: str) -> object:
        looked_up.append(given)
        return prefixes.find_deployment(small.app.state.farm.state, given)

    monkeypatch.setattr(submission, "find_deployment", counted)
    lines = [b'{"agent": "ecko"}', b'{"agent": "echo"}'] * 50
    answer = await submit_batch(small.app.state.farm, body(*lines), OPERATOR)
    answers = [orjson.loads(line) for line in answer.splitlines()]
    assert looked_up == ["ecko", "echo"]
    assert [item["index"] for item in answers] == list(range(100))
    assert {item["problem"]["nearest"] for item in answers[::2]} == {"echo"}
    assert all("id" in item for item in answers[1::2])


async def test_many_unknown_agents_are_refused_without_a_search_for_each(
    small: SmallFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [b'{"agent": "none-%d"}' % number for number in range(UNKNOWN_AGENTS_MAX + 50)]
    reader = submission.SubmissionReader(small.app.state.farm.state, 1024)
    for line in lines:
        with pytest.raises(NotFound):
            reader.read_line(line)
    monkeypatch.setattr("agentfarm.names.nearest", None)  # not called any more
    with pytest.raises(NotFound, match="none-9999"):
        reader.read_line(b'{"agent": "none-9999"}')
    assert reader.read_line(b'{"agent": "ech"}').deployment == "echo", "a beginning of a name still counts"
