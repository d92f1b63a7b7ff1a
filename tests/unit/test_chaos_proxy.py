"""The faulty network of the chaos run does what it says: else its partitions would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest_asyncio

from benchmarks.proxy import Proxy

DEADLINE_S = 60.0


class Echo:
    """A server that answers with what it receives, and says when a connection of its own ends."""

    def __init__(self) -> None:
        self.received = asyncio.Queue[bytes]()
        self.connections = 0
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(1024):
                self.received.put_nowait(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.ended.set()
            writer.close()


class Wire:
    """A proxy before an echo."""

    def __init__(self, proxy: Proxy, echo: Echo) -> None:
        self.proxy, self.echo = proxy, echo
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self._writers.append(writer)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[Wire]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = Proxy(*server.sockets[0].getsockname()[:2])
    await proxy.start()
    made = Wire(proxy, echo)
    yield made
    made.close()
    await proxy.stop()
    server.close()


async def received(wire: Wire) -> bytes:
    return await asyncio.wait_for(wire.echo.received.get(), DEADLINE_S)


async def read(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(1024), DEADLINE_S)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1024), 0.2)
    except TimeoutError:
        return True
    return False


async def test_nothing_is_held_at_first(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"hello")
    assert await read(reader) == b"hello"


async def test_what_is_held_upwards_arrives_when_the_network_heals(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"1")
    assert await read(reader) == b"1"
    wire.proxy.hold(up=True)
    writer.write(b"2")
    assert await is_silent(reader)
    assert wire.echo.received.qsize() == 1
    wire.proxy.hold()
    assert await read(reader) == b"2"


async def test_held_downwards_the_server_still_hears(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"1")
    assert await read(reader) == b"1"
    wire.proxy.hold(down=True)
    writer.write(b"2")
    assert await received(wire) == b"1"
    assert await received(wire) == b"2"
    assert await is_silent(reader)
    wire.proxy.hold()
    assert await read(reader) == b"2"


async def test_connection_made_while_cut_off_reaches_no_one_until_it_heals(wire: Wire) -> None:
    wire.proxy.hold(up=True, down=True)
    reader, writer = await wire.connect()
    writer.write(b"hello")
    assert await is_silent(reader)
    assert wire.echo.connections == 0
    wire.proxy.hold()
    assert await read(reader) == b"hello"


async def test_reset_ends_both_sides(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"1")
    assert await read(reader) == b"1"
    assert wire.proxy.reset() == 1
    with contextlib.suppress(ConnectionResetError):
        assert await read(reader) == b""
    await asyncio.wait_for(wire.echo.ended.wait(), DEADLINE_S)


async def test_half_open_connection_is_dead_and_the_client_does_not_hear_of_it(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"1")
    assert await read(reader) == b"1"
    assert await received(wire) == b"1"
    assert wire.proxy.half_open(lost="server") == 1
    await asyncio.wait_for(wire.echo.ended.wait(), DEADLINE_S)
    writer.write(b"2")
    await writer.drain()
    assert await is_silent(reader)
    assert wire.echo.received.empty()
    fresh, other = await wire.connect()
    other.write(b"3")
    assert await read(fresh) == b"3"


async def test_half_open_connection_is_dead_and_the_server_does_not_hear_of_it(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(b"1")
    assert await read(reader) == b"1"
    assert wire.proxy.half_open(lost="client") == 1
    with contextlib.suppress(ConnectionResetError):
        assert await read(reader) == b""
    assert not wire.echo.ended.is_set()
