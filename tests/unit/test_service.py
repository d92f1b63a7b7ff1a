"""The life of a service, its tasks, and works of which the first ends all."""

from __future__ import annotations

import asyncio

import pytest

from agentfarm.service import Service, Tasks, first_of
from tests.service_contract import Blow, ServiceContract


class Clockwork(Service):
    """Two tasks that never end, and a list of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.story: list[str] = []
        self.fails = False

    async def _begin(self) -> None:
        self.run_task(self._tick("a"))
        self.run_task(self._tick("b"))
        await asyncio.sleep(0)
        if self.fails:
            raise Blow
        self.story.append("begun")

    async def _finish(self) -> None:
        self.story.append("finish")

    async def _tick(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.story.append(f"{name} ended")


class TestClockwork(ServiceContract):
    @pytest.fixture
    def service(self) -> Service:
        return Clockwork()


async def test_finish_comes_before_the_end_of_the_tasks() -> None:
    service = Clockwork()
    await service.start()
    await service.stop()
    assert service.story[:2] == ["begun", "finish"]
    assert sorted(service.story[2:]) == ["a ended", "b ended"]


async def test_start_that_fails_leaves_nothing_and_can_be_tried_again() -> None:
    service = Clockwork()
    service.fails = True
    with pytest.raises(Blow):
        await service.start()
    assert sorted(service.story) == ["a ended", "b ended", "finish"]
    service.fails = False
    await service.start()
    assert service.is_up
    await service.stop()


async def test_service_whose_task_died_is_still_stopped_in_order() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    service = Clockwork()
    await service.start()

    async def die() -> None:
        raise Blow

    service.run_task(die())
    with pytest.raises(Blow):
        await service.wait()
    assert service.story == ["begun"]
    await service.stop()
    assert service.story[:2] == ["begun", "finish"]


async def test_errand_that_fails_is_reported_and_harms_no_other() -> None:
    messages: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: messages.append(str(context["message"])))
    failures: list[BaseException] = []
    tasks = Tasks("errands", failures.append)

    async def die() -> None:
        raise Blow

    tasks.run(asyncio.Event().wait())
    errand = tasks.errand(die(), name="the errand")
    await asyncio.wait((errand,))
    await asyncio.sleep(0)
    assert len(tasks) == 1
    assert not failures
    assert "the errand" in messages[0]
    await tasks.end()
    assert len(tasks) == 0


async def test_task_may_end_its_owners_tasks_and_is_itself_left_alone() -> None:
    tasks = Tasks("owner")
    other = tasks.run(asyncio.Event().wait())

    async def end_all() -> str:
        await tasks.end()
        return "lived on"

    assert await tasks.run(end_all()) == "lived on"
    assert other.cancelled()


async def test_first_that_ends_ends_the_others() -> None:
    story: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            story.append("slow ended")

    async def quick(value: int) -> int:
        return value

    ended = await first_of(slow(), quick(7), quick(8))
    assert ended.result() == 7
    assert story == ["slow ended"]


async def test_works_end_with_the_one_that_waits_for_the_first() -> None:
    story: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            story.append("ended")

    waiting = asyncio.create_task(first_of(slow(), slow()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert story == ["ended", "ended"]
