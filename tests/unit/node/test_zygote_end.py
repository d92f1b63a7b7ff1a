"""A zygote that was told to stop has ended when it is gone, not when it answers that it will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from nodeagent.replicas.zygotes import Zygotes
from nodeagent.runner.protocol.unix_sockets import listen
from nodeagent.runner.zygote.messages import SOCKET_NAME, LineReader, encode


class SlowZygote:
    """Answers, and is then as long about its end as the test wants."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.may_end = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (asked,) = LineReader().feed(await reader.readline())
        assert asked["op"] == "stop"
        writer.write(encode({"id": asked["id"]}))
        await writer.drain()
        self.answered.set()
        await self.may_end.wait()
        writer.close()


@pytest.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[SlowZygote]:
    folder = tmp_path / "env-one"
    folder.mkdir()
    zygote = SlowZygote()
    async with await asyncio.start_unix_server(zygote.serve, sock=listen(folder / SOCKET_NAME)):
        yield zygote


async def test_stop_waits_for_the_end_of_the_process(zygote: SlowZygote, tmp_path: Path) -> None:
    zygotes = Zygotes(tmp_path, cast("Any", None), lambda *_: None, release="1")
    await zygotes.find()
    stopping = asyncio.create_task(zygotes.stop())
    await zygote.answered.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    done, _ = await asyncio.wait({stopping}, timeout=0.05)
    assert not done
    zygote.may_end.set()
    await stopping
