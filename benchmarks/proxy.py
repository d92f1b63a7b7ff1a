"""A TCP proxy with faults, on loopback: what stands between a node and its controller when the network is bad.

`up` is from the client (a node) to the server (a controller), `down` the other way. While a direction is held, what is
sent that way waits, as segments do that are lost and sent again; when it is let go, what still is on the way arrives.
A connection that is made while any direction is held is not answered until both are open. Owns nothing but its
sockets; runs on one event loop, and every call belongs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
CLOSE_WITH_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, 0 s."""


class _Side:
    """One end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def reset(self) -> None:
        """End it with RST, at once."""
        connection = self.writer.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RESET)
        self.writer.transport.abort()


class _Connection:
    """Two sides and the two pumps between them. A side that is muted is read, and nothing comes of it."""

    def __init__(self, client: _Side, server: _Side, proxy: Proxy) -> None:
        self.client, self.server = client, server
        self.is_half_open = False
        self._proxy = proxy

    async def run(self) -> None:
        """Until both directions have ended."""
        await asyncio.gather(
            self._pump(self.client, self.server, self._proxy.up),
            self._pump(self.server, self.client, self._proxy.down),
        )

    async def _pump(self, source: _Side, sink: _Side, is_open: asyncio.Event) -> None:
        try:
            while data := await source.reader.read(CHUNK_BYTES):
                await is_open.wait()
                if not self.is_half_open:
                    sink.writer.write(data)
                    await sink.writer.drain()
            await is_open.wait()
        except OSError:
            pass
        if not self.is_half_open:
            sink.writer.close()

    def reset(self) -> None:
        """RST to both."""
        self.client.reset()
        self.server.reset()

    def lose(self, side: _Side) -> None:
        """That side goes with RST. The other side does not learn of it, and its bytes reach no one from now on."""
        self.is_half_open = True
        side.reset()


class Proxy:
    """Listens on a port of its own and forwards to `target`; a change of that concerns connections made later."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.up.set()
        self.down.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """host:port for the client."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end every connection. Safe twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -------------------------------------------------------------- faults

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Let nothing through that way; False opens it."""
        for is_open, is_held in ((self.up, up), (self.down, down)):
            (is_open.clear if is_held else is_open.set)()

    def reset(self) -> int:
        """RST to both ends of every connection. Returns how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.reset()
        return len(connections)

    def half_open(self, *, lost: str) -> int:
        """One end of every connection (`client` or `server`) loses it, the other does not hear of that.

        New connections are not affected. Returns how many there were.
        """
        connections = list(self._connections)
        for connection in connections:
            connection.lose(connection.client if lost == "client" else connection.server)
        return len(connections)

    # -------------------------------------------------------------- connections

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = _Side(reader, writer)
        try:
            await self.up.wait()
            await self.down.wait()
            server = _Side(*await asyncio.open_connection(*self.target))
        except OSError:
            client.reset()  # nothing listens there: the client gets what it would get without a proxy
            return
        except asyncio.CancelledError:
            client.reset()
            return
        finally:
            self._tasks.discard(task)
        self._tasks.add(task)
        connection = _Connection(client, server, self)
        self._connections.add(connection)
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass
        finally:
            connection.reset()
            self._connections.discard(connection)
            self._tasks.discard(task)
