"""Streams between nodes and controllers: ordered, late, cut, half-open, and blocked one way or both.

A stream is what gRPC over TCP is: within it messages come in order or not at all. What is sent into a partition waits
in kernels and comes when it heals, unless the stream is cut before; so old streams may deliver after new ones opened.
"""

from __future__ import annotations

from typing import Any, Protocol

from tests.simulation.world import World

KEEPALIVE_S = (10.0, 15.0)  # when the end of a dead stream is noticed at the latest


class End(Protocol):
    """One end of a stream."""

    def heard(self, stream: Stream, message: Any) -> None: ...
    def broken(self, stream: Stream) -> None: ...


class Stream:
    """One connection. `up` is from the node to the controller."""

    def __init__(self, network: Network, node: str, node_end: End, controller_end: End) -> None:
        self.network = network
        self.node = node
        self._ends: dict[str, End] = {"up": controller_end, "down": node_end}  # who receives in a direction
        self._is_open = {"up": True, "down": True}  # whether its receiver still listens
        self._last = {"up": 0.0, "down": 0.0}
        self._held: dict[str, list[Any]] = {"up": [], "down": []}
        self._cut_at = float("inf")

    def send_up(self, message: Any) -> None:
        """From the node."""
        self._send("up", message)

    def send_down(self, message: Any) -> None:
        """From the controller."""
        self._send("down", message)

    def _send(self, way: str, message: Any) -> None:
        if self.network.is_blocked(self.node, way):
            self._held[way].append(message)
        else:
            self._carry(way, message)

    def _carry(self, way: str, message: Any) -> None:
        world = self.network.world
        moment = self._last[way] = max(self._last[way], world.now + self.network.delay_s(self.node))
        world.at(moment - world.now, self._arrive, way, message)

    def _arrive(self, way: str, message: Any) -> None:
        if self._is_open[way] and self.network.world.now <= self._cut_at:
            self._ends[way].heard(self, message)

    def healed(self, way: str) -> None:
        """What was held in this direction goes on its way."""
        held, self._held[way] = self._held[way], []
        for message in held:
            self._carry(way, message)

    # -------------------------------------------------------------- ends

    def close(self, way: str) -> None:
        """The receiver of that direction lets go of the stream; the other end hears of it as of any other message."""
        if not self._is_open[way]:
            return
        self._is_open[way] = False
        other = "down" if way == "up" else "up"
        world, network = self.network.world, self.network
        if network.is_blocked(self.node, other):
            if not network.is_lucky(0.5):  # a reset that is lost, and the kernel forgets what it held
                self._held[other].clear()
            world.at(network.keepalive_s(), self._notice, other)
        else:
            moment = max(self._last[other], world.now + network.delay_s(self.node))
            world.at(moment - world.now, self._notice, other)

    def cut(self, *, unnoticed_by: str | None = None) -> None:
        """Everything on its way is lost. The ends notice soon, but for one that does only by keepalive."""
        world = self.network.world
        self._cut_at = world.now
        for way in ("up", "down"):
            self._held[way].clear()
            late = unnoticed_by == way
            world.at(self.network.keepalive_s() if late else self.network.delay_s(self.node), self._notice, way)

    def vanish(self, way: str) -> None:
        """The receiver of that direction is no more and could tell nobody: power lost."""
        self._is_open[way] = False
        other = "down" if way == "up" else "up"
        self._held[other].clear()
        self.network.world.at(self.network.keepalive_s(), self._notice, other)

    def _notice(self, way: str) -> None:
        if self._is_open[way]:
            self._is_open[way] = False
            self._ends[way].broken(self)

    def keepalive(self) -> None:
        """Called while the node cannot be reached: after a while both ends give up."""
        for way in ("up", "down"):
            self._notice(way)


class Network:
    """All streams, and what is wrong with the paths of each node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._random = world.chance("network")
        self._blocked: dict[str, dict[str, int]] = {}  # node -> way -> partitions in force
        self._slow_until: dict[str, float] = {}
        self._streams: dict[str, list[Stream]] = {}

    def open(self, node: str, node_end: End, controller_end: End) -> Stream:
        """A new stream of a node."""
        stream = Stream(self, node, node_end, controller_end)
        streams = self._streams.setdefault(node, [])
        streams.append(stream)
        del streams[:-8]  # older ones have long been given up
        return stream

    def delay_s(self, node: str) -> float:
        """How long one message takes."""
        draw = self._random.random()
        base_s = 0.0003 + 0.002 * draw if draw < 0.97 else 0.05 * self._random.random()
        if self._slow_until.get(node, 0.0) > self.world.now:
            base_s += 0.8 * self._random.random()
        return base_s

    def keepalive_s(self) -> float:
        """When the end of a dead stream is noticed."""
        return self._random.uniform(*KEEPALIVE_S)

    def is_lucky(self, share: float) -> bool:
        """A coin."""
        return self._random.random() < share

    def is_blocked(self, node: str, way: str) -> bool:
        """Whether a partition holds messages of that direction."""
        ways = self._blocked.get(node)
        return ways is not None and bool(ways.get(way))

    def is_clear(self, node: str) -> bool:
        """Whether messages of that node pass, and pass quickly."""
        slow_until = self._slow_until.get(node, 0.0)
        return slow_until <= self.world.now and not any(self.is_blocked(node, way) for way in ("up", "down"))

    # -------------------------------------------------------------- faults

    def reset(self, node: str, unnoticed_by: str | None = None) -> None:
        """Cut the node's streams."""
        for stream in self._streams.get(node, []):
            stream.cut(unnoticed_by=unnoticed_by)

    def vanish(self, node: str, way: str) -> None:
        """One end of every stream of the node is gone without a word."""
        for stream in self._streams.get(node, []):
            stream.vanish(way)

    def slow(self, node: str, for_s: float) -> None:
        """Messages take up to a second for a while."""
        self._slow_until[node] = self.world.now + for_s

    def partition(self, node: str, ways: tuple[str, ...], for_s: float) -> None:
        """Hold what is sent in these directions until it heals."""
        blocked = self._blocked.setdefault(node, {})
        for way in ways:
            blocked[way] = blocked.get(way, 0) + 1
        self.world.at(for_s, self._heal, node, ways)
        if for_s > KEEPALIVE_S[0]:
            for stream in self._streams.get(node, []):
                self.world.at(self.keepalive_s(), self._give_up, node, stream)

    def _heal(self, node: str, ways: tuple[str, ...]) -> None:
        for way in ways:
            if not self._blocked[node][way]:
                continue  # healed with everything else
            self._blocked[node][way] -= 1
            if not self._blocked[node][way]:
                for stream in self._streams.get(node, []):
                    stream.healed(way)

    def heal(self) -> None:
        """Everything is well from now on."""
        self._slow_until.clear()
        for node, blocked in self._blocked.items():
            for way in [way for way, count in blocked.items() if count]:
                blocked[way] = 0
                for stream in self._streams.get(node, []):
                    stream.healed(way)

    def _give_up(self, node: str, stream: Stream) -> None:
        if any(self._blocked.get(node, {}).values()):
            stream.keepalive()
