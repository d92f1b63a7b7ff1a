"""One zygote's loop: requests in, forks out, the dead reaped. One thread, because it forks."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nodeagent.runner.protocol.launch import Launch
from nodeagent.runner.protocol.unix_sockets import listen
from nodeagent.runner.replica.process import become_subreaper
from nodeagent.runner.zygote.guard import LeaseGuard
from nodeagent.runner.zygote.messages import SOCKET_NAME, LineReader, encode

READ_BYTES: Final = 64 * 1024
LOOK_EVERY_S: Final = 10.0
LONELY_MAX_S: Final = 900.0
"""A zygote with no children that no daemon has been connected to for this long ends: it has no use."""

Reply = Callable[[dict[str, Any]], None]
Handler = Callable[[dict[str, Any], Reply], None]
Exited = Callable[[int, int], dict[str, Any] | None]


class _Peer:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = LineReader()


class Server:
    """Serves a zygote's folder. `handlers` by op; `exited(pid, status)` makes the news of a dead child, if any.

    `ends_strays`: what a dead child leaves running is killed. Right for an agent's zygote, whose children are replicas;
    wrong for an environment's, which would inherit the living replicas of an agent zygote that died.
    """

    def __init__(self, folder: Path, exited: Exited, *, ends_strays: bool) -> None:
        self.handlers: dict[str, Handler] = {"stop": self._stop, "lease": self._lease}
        self.children: set[int] = set()
        self.replicas: dict[int, Launch] = {}
        """Those children that are replicas."""
        self._guard = LeaseGuard(self.replicas)
        self._folder = folder
        self._exited = exited
        self._peers: list[_Peer] = []
        self._selector = selectors.DefaultSelector()
        self._ends_when_alone = False
        self._lonely_since = time.monotonic()
        self._signal_r, self._signal_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._signal_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop({}, lambda _answer: None))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._ends_strays = ends_strays
        if ends_strays:
            become_subreaper()
        self._listener = listen(folder / SOCKET_NAME)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._signal_r, selectors.EVENT_READ, self._signalled)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` when there is something to read."""
        self._selector.register(fd, selectors.EVENT_READ, ready)

    def unwatch(self, fd: int) -> None:
        """The reverse of `watch`."""
        self._selector.unregister(fd)

    def serve(self) -> None:
        """Until it must stop and is alone, or lonely for too long."""
        try:
            while not self._is_done():
                for key, _ in self._selector.select(self._guard.look_every_s or LOOK_EVERY_S):
                    key.data()
                self._reap()
                self._guard.look()
                if not self._peers and not self._folder.exists():
                    self._ends_when_alone = True  # the node was taken away, folder and all
        finally:
            with suppress(OSError):
                (self._folder / SOCKET_NAME).unlink()

    def leave(self) -> None:
        """In a forked child: let go of everything that is the parent's."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            with suppress(OSError):
                os.close(key.fd)
        os.close(self._signal_w)
        self._selector.close()
        self._listener.detach()
        for peer in self._peers:
            peer.connection.detach()
        self._peers.clear()
        self.children.clear()
        self.replicas.clear()

    def _is_done(self) -> bool:
        if self.children or self._peers:
            self._lonely_since = time.monotonic()
        lonely = time.monotonic() - self._lonely_since > LONELY_MAX_S
        return not self.children and (self._ends_when_alone or lonely)

    def _stop(self, _request: dict[str, Any], reply: Reply) -> None:
        self._ends_when_alone = True
        reply({})

    def _lease(self, request: dict[str, Any], _reply: Reply) -> None:
        """News, not a question: there is no answer."""
        self._guard.renew(float(request["until_s"]))

    # -------------------------------------------------------------- peers

    def _accept(self) -> None:
        with suppress(BlockingIOError, InterruptedError):
            connection, _ = self._listener.accept()
            connection.settimeout(1.0)  # for writes; reads happen only when there is something to read
            peer = _Peer(connection)
            self._peers.append(peer)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(peer))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(READ_BYTES)
            if not data:
                raise ConnectionError
            for message in peer.reader.feed(data):
                self._handle(peer, message)
        except (OSError, ValueError):
            self._drop(peer)

    def _handle(self, peer: _Peer, message: dict[str, Any]) -> None:
        number = message.get("id")

        def reply(answer: dict[str, Any]) -> None:
            self._tell(peer, {"id": number, **answer})

        handler = self.handlers.get(message.get("op", ""))
        if handler is None:
            reply({"error": f"this zygote knows no {message.get('op')!r}"})
            return
        try:
            handler(message, reply)
        except (OSError, KeyError, TypeError) as problem:
            reply({"error": f"{type(problem).__name__}: {problem}"})

    def _tell(self, peer: _Peer, message: dict[str, Any]) -> None:
        try:
            peer.connection.sendall(encode(message))
        except OSError:
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            self._selector.unregister(peer.connection)
            peer.connection.close()

    # -------------------------------------------------------------- children

    def _signalled(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._signal_r, 4096)

    def _reap(self) -> None:
        """Collect the dead. What a dead child left running is ours now (we are its subreaper) and ends too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self.children:
                continue
            self.children.discard(pid)
            if self._ends_strays:
                self._end_strays()
            news = self._exited(pid, status)
            if news is not None:
                for peer in list(self._peers):
                    self._tell(peer, news)

    def _end_strays(self) -> None:
        """Kill children that we did not fork: a replica's own, left behind. Those of living replicas stay theirs."""
        task = os.getpid()
        with suppress(OSError):
            listed = Path(f"/proc/{task}/task/{task}/children").read_text().split()
            for pid in {int(text) for text in listed} - self.children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
