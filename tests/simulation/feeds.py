"""Simulated feeds, what operators want of them, and the eyes on both. What is said of a feed when is shipped code.

A feed remembers on disk what its node was told to feed; how each product does begins anew with every daemon. The checks
keep their own books from what was committed and what the feeds said, as those in checkers.py do.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agentfarm.wire import market_pb2
from controller.core.commands import Command, MarketReported, NodeJoined
from controller.core.lives import NodeState, ProductState
from controller.core.model import Node, NodeName, Product
from controller.core.transition import Changes, SetDesired
from controller.journal.memory import Tables
from nodeagent.machine.programs import RuntimeFolder
from nodeagent.services.market.report import Reports
from nodeagent.services.registry import Services
from nodeagent.services.service import NodeService, Place
from tests.simulation.laws import Broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.simulation.machines import Machine

PRODUCTS: Final = ("P0", "P1", "P2", "P3")
SOURCES: Final = ("a", "a", "b")
GOOD, DOUBTFUL = market_pb2.PRODUCT_STATE_GOOD, market_pb2.PRODUCT_STATE_DOUBTFUL
FAILED, STARTING = market_pb2.PRODUCT_STATE_FAILED, market_pb2.PRODUCT_STATE_STARTING

NOWHERE: Final = Place(Path(), RuntimeFolder(Path()), ends_processes=False, changed=lambda: None)


class Feed:
    """One machine's feed. Without a source it is none."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._random: random.Random = machine.world.chance(f"feed {machine.name}")
        self.source = ""
        self.own: frozenset[str] = frozenset()
        self.told: set[str] = set()  # on disk
        self._states: dict[str, market_pb2.ProductState] = {}

    def furnish(self) -> None:
        """Give the machine a feed, or none, as chance has it."""
        if self._random.random() < 0.8:
            self.source = self._random.choice(SOURCES)
            self.own = frozenset(PRODUCTS[:1]) if self._random.random() < 0.15 else frozenset()

    def services(self) -> Services:
        """The services of a daemon that starts."""
        return Services([Market(self)] if self.source else [])

    def begin(self) -> None:
        """The daemon starts, and the feed with it."""
        self._states.clear()
        self._settle()

    def assign(self, products: Iterable[str]) -> None:
        """Feed these, beside its own."""
        self.told = set(products)
        self._settle()

    def statuses(self) -> list[market_pb2.ProductStatus]:
        """How each product does."""
        return [market_pb2.ProductStatus(product=name, state=state) for name, state in sorted(self._states.items())]

    def _settle(self) -> None:
        served = self.told | self.own
        for name in self._states.keys() - served:
            del self._states[name]
        for name in sorted(served - self._states.keys()):
            self._become(name, STARTING)

    def _become(self, name: str, state: market_pb2.ProductState) -> None:
        if name not in self.told | self.own:
            return
        self._states[name] = state
        wait_s = {STARTING: 1.5, GOOD: 40.0, DOUBTFUL: 1.0, FAILED: 5.0}[state] * (0.1 + self._random.random())
        follows = DOUBTFUL if state == GOOD else GOOD if self._random.random() < 0.9 else FAILED
        self._machine.daemon.after(wait_s, self._follow, name, state, follows)

    def _follow(self, name: str, state: market_pb2.ProductState, follows: market_pb2.ProductState) -> None:
        if self._states.get(name) == state:
            self._become(name, follows)


class Market(NodeService):
    """The border that nodeagent/services/market/service.py is to real daemons."""

    name = "market"

    def __init__(self, feed: Feed) -> None:
        super().__init__(NOWHERE)
        self._feed = feed
        self._reports = Reports()

    def hello(self) -> bytes:
        feed = self._feed
        return market_pb2.MarketHello(
            products=sorted(feed.own), takes_products=True, source=feed.source
        ).SerializeToString()

    def obey(self, desired: bytes) -> None:
        self._feed.assign(market_pb2.MarketDesired.FromString(desired).products)

    def report(self, *, is_first: bool) -> bytes:
        report = self._reports.next(self._feed.statuses(), market_pb2.MarketMeasured(), is_first=is_first)
        return report.SerializeToString()


def feed_happenings(seed: int, length_s: float) -> list[tuple[float, str, tuple[Any, ...]]]:
    """What operators want fed in a history, and one long loss: nothing in half of them. It does not move the plan."""
    chance = random.Random(f"{seed}:operators")
    if chance.random() < 0.5:
        return []
    wishes: list[tuple[float, str, tuple[Any, ...]]] = [(0.2, "do_add_machine", (512,))] * 2  # somewhere to go
    moment = 0.6
    while moment < length_s:
        name = chance.choice(PRODUCTS)
        if moment > 0.6 and chance.random() < 0.2:
            wishes.append((round(moment, 3), "do_unfeed", (name,)))
        else:
            source = chance.choice((None, None, None, "a", "b"))
            wishes.append((round(moment, 3), "do_feed", (name, chance.choice((1, 1, 2, 3)), source)))
        moment += chance.expovariate(0.3)
    if length_s > 12.0:  # enough to be found lost, while something is fed
        at, number = round(chance.uniform(2.0, length_s - 10.0), 3), chance.randrange(1 << 16)
        wishes.append((at, "do_cut_feeding", (number, round(chance.uniform(9.0, 14.0), 3))))
    return wishes


# ------------------------------------------------------------------ checks


class NodeBook(NamedTuple):
    """A node as it was last committed."""

    state: NodeState
    is_cordoned: bool
    is_leaving: bool
    is_forced: bool
    takes_products: bool
    source: str
    own: frozenset[str]


class FeedChecks:
    """The books of one history's products."""

    def __init__(self, tables: Tables, machines: Mapping[str, Machine]) -> None:
        self._tables = tables
        self._machines = machines
        self._nodes: dict[str, NodeBook] = {}
        self._holders: dict[str, frozenset[str]] = {}
        self._good: dict[tuple[int, str], frozenset[str]] = {}  # epoch, node -> what it feeds well, by its own word
        self.moves = 0

    def heard(self, epoch: int, sessions: Mapping[NodeName, int], commands: Iterable[Command]) -> None:
        """A turn begins: what its feeds say. After a Hello a node has not said anything yet."""
        now = dict(sessions)
        for command in commands:
            if isinstance(command, NodeJoined):
                now[command.node] = command.session
                self._good.pop((epoch, command.node), None)
            elif isinstance(command, MarketReported) and now.get(command.node) == command.session:
                good = (name for name, status in command.products.items() if status.state is ProductState.GOOD)
                self._good[epoch, command.node] = frozenset(good)

    def sent(self, effect: SetDesired) -> None:
        """The controller tells a node what should be."""
        if effect.products is not None and not self._machines[effect.node].feed.source:
            raise Broken("a node without a feed is told of no product", f"{effect.node}: {effect.products}")

    def committed(self, changes: Changes, epoch: int) -> None:
        """The database applied a turn."""
        for gone in changes.gone(Node):
            self._nodes.pop(gone.name, None)
        for node in changes.stored(Node):
            self._nodes[node.name] = _book(node)
        for removed in changes.gone(Product):
            self._holders.pop(removed.name, None)
        for product in changes.stored(Product):
            before = self._holders.get(product.name, frozenset())
            self._holders[product.name] = frozenset(product.nodes)
            for name in sorted(product.nodes - before):
                self._may_take(product, name)
            for relieved in sorted(before - product.nodes):
                self.moves += 1
                self._may_be_relieved(product, relieved, before, epoch)
        for held, holders in self._holders.items():
            for it in holders:
                if it not in self._nodes or self._nodes[it].state is NodeState.LOST:
                    raise Broken("products of a lost node go elsewhere in the same turn", f"{held} on {it}")

    def _may_take(self, product: Product, name: str) -> None:
        node = self._nodes[name]
        if node.state is not NodeState.READY or node.is_cordoned or node.is_leaving or not node.takes_products:
            raise Broken("no product is given to a cordoned, draining or lost node", f"{product.name}: {name}, {node}")

    def _may_be_relieved(self, product: Product, name: str, before: frozenset[str], epoch: int) -> None:
        node = self._nodes.get(name)
        if node is None or node.state is NodeState.LOST or node.is_forced or product.source not in ("", node.source):
            return
        staying = [it for it in self._staying(product) if it in before or product.name in self._nodes[it].own]
        if not node.is_leaving and len(staying) < product.copies:
            raise Broken("a copy that holds is not moved", f"{product} from {name}")
        good = sum(self._is_good(product.name, it, epoch) for it in {*product.nodes, *staying})
        if self._is_good(product.name, name, epoch) and good < product.copies:
            raise Broken("a good copy is given up for good ones", f"{product} from {name}, {good} others are good")

    def _staying(self, product: Product) -> list[str]:
        """Nodes that count as copies: told to, or by their own settings, and not on their way out."""
        return [
            name
            for name, it in self._nodes.items()
            if not it.is_leaving
            and it.state in (NodeState.READY, NodeState.UNREACHABLE)
            and (name in product.nodes or (product.name in it.own and product.source in ("", it.source)))
        ]

    def _is_good(self, product: str, name: str, epoch: int) -> bool:
        return self._nodes[name].state is NodeState.READY and product in self._good.get((epoch, name), frozenset())

    # -------------------------------------------------------------- the end

    def unsettled(self) -> list[str]:
        """When faults have stopped: each product is fed by as many live nodes as wanted, and nothing else is fed."""
        found = []
        machines = self._machines.values()
        for product in self._tables.stored(Product):
            able = [it for it in machines if it.feed.source and product.source in ("", it.feed.source)]
            feeding = {it.name for it in able if it.daemon.is_alive and product.name in it.feed.told | it.feed.own}
            own = sum(product.name in it.feed.own for it in able)
            if len(feeding) != max(own, min(product.copies, len(able))):
                found.append(f"{product.name} wants {product.copies} of {len(able)}, fed by {sorted(feeding)}")
        for machine in machines:
            told = {it.name for it in self._tables.stored(Product) if machine.name in it.nodes}
            if machine.feed.told != told:
                found.append(f"{machine.name} feeds {sorted(machine.feed.told)}, should feed {sorted(told)}")
        return found


def _book(node: Node) -> NodeBook:
    return NodeBook(
        node.state, node.is_cordoned, node.drain is not None, node.drain is not None and node.drain.is_forced,
        node.takes_products, node.market_source, node.products,
    )  # fmt: skip
