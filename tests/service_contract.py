"""What every service promises of its life. Each has one subclass of `ServiceContract`, beside its other tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentfarm.service import Service

GIVE_UP_S = 60.0


class Blow(Exception):
    """What kills a task here."""


async def _die() -> None:
    raise Blow


async def _no_more() -> None:
    """Let callbacks of what has just ended run."""
    for _ in range(3):
        await asyncio.sleep(0)


def _others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


class ServiceContract:
    """Subclasses give the fixture `service`: one that was not started."""

    @pytest.fixture
    async def reports(self) -> AsyncIterator[list[str]]:
        """What the loop's exception handler hears."""
        messages: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: messages.append(str(context["message"])))
        yield messages
        loop.set_exception_handler(None)

    @pytest.fixture(autouse=True)
    async def is_stopped_in_the_end(self, service: Service) -> AsyncIterator[None]:
        yield
        await service.stop()

    async def test_stop_is_safe_unstarted(self, service: Service) -> None:
        await service.stop()
        assert not service.is_up

    async def test_it_ends_with_its_tasks(self, service: Service) -> None:
        before = _others()
        await service.start()
        assert service.is_up
        await service.stop()
        await _no_more()
        assert not service.is_up
        assert _others() <= before

    async def test_start_is_safe_twice(self, service: Service) -> None:
        await service.start()
        tasks = _others()
        await service.start()
        assert _others() <= tasks

    async def test_stop_is_safe_twice(self, service: Service) -> None:
        await service.start()
        await service.stop()
        await service.stop()

    async def test_all_that_stop_it_at_once_return_when_it_is_down(self, service: Service) -> None:
        before = asyncio.all_tasks()
        await service.start()

        async def stopped() -> bool:
            await service.stop()
            return asyncio.all_tasks() <= before.union(stops)

        stops = [asyncio.create_task(stopped()) for _ in range(3)]
        async with asyncio.timeout(GIVE_UP_S):
            assert await asyncio.gather(*stops) == [True] * 3

    async def test_wait_returns_when_it_is_stopped(self, service: Service) -> None:
        await service.start()
        waiting = asyncio.create_task(service.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        await service.stop()
        async with asyncio.timeout(GIVE_UP_S):
            await waiting

    async def test_task_that_dies_takes_it_down_loudly(self, service: Service, reports: list[str]) -> None:
        owner = Service("owner")
        await owner.start()
        owner.own(service)
        await service.start()
        service.run_task(_die(), name="the one that dies")
        for one in (service, owner):
            async with asyncio.timeout(GIVE_UP_S):
                with pytest.raises(Blow):
                    await one.wait()
        assert any("the one that dies" in message for message in reports)
        async with asyncio.timeout(GIVE_UP_S):
            await service.stop()
            await owner.stop()
