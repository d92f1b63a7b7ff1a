"""The farm on this machine: started in order, kept running, stopped in the opposite order.

```
market choice ─┐                        ┌─▶ node-1 + QuestDB + feed
controller ────┼─▶ invite, join, run ───┼─▶ node-2            ─▶ agents ─▶ ready
QuestDB jar ───┘                        └─▶ node-3
```
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import FarmError, Unavailable
from farmctl.client import FarmClient
from farmctl.connection import Connection
from farmctl.dev import records
from farmctl.dev.folder import FarmFolder, read_json, write_json
from farmctl.dev.keeping import Keeper
from farmctl.dev.market import PRODUCTS, Market, MarketKind, choose_market, is_live_reachable
from farmctl.dev.ports import DEFAULT_PORT, choose_port, remembered_port
from farmctl.dev.preparing import Preparation
from farmctl.dev.processes import environment
from farmctl.dev.programs import (
    CONTROLLER,
    EXCHANGE,
    Addresses,
    Ports,
    announced_addresses,
    controller_program,
    exchange_program,
    join_command,
    market_settings,
    node_program,
)
from farmctl.dev.settings import DevSettings
from farmctl.dev.shelf import exchange_shelf, last_trade_ids, market_key
from farmctl.dev.stopping import StopWish
from farmctl.dev.watching import Glimpse, glimpse

NODES_READY_S: Final = 60.0
JOIN_WITHIN_S: Final = 30.0
PREPARE_WITHIN_S: Final = 600.0
PORT_TRIES: Final = 5
PORT_LOST: Final = "Address already in use"
LOOK_EVERY_S: Final = 0.1
WRITE_DOWN_EVERY_S: Final = 2.0
SEED: Final = 1


class DevFarm:
    """One farm. `say` hears every step, in words."""

    def __init__(self, settings: DevSettings, folder: FarmFolder, wish: StopWish, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.folder = folder
        self.market: Market = Market(MarketKind.OFF, "off")
        self.products: tuple[str, ...] = PRODUCTS
        """What the market trades."""
        self.notes: list[str] = []
        """What a person should know at the end of the start too."""
        self.ports = Ports(0, 0)
        self._wish = wish
        self._say = say
        self._keeper = Keeper(say, started=self._write_down)
        self._preparation: Preparation | None = None
        self._client: FarmClient | None = None
        self._written_down_at_s = 0.0

    @property
    def client(self) -> FarmClient:
        """The gateway; valid once the controller runs."""
        assert self._client is not None, "the controller was not started"
        return self._client

    @property
    def restarts(self) -> int:
        """How often one of our processes was started again."""
        return self._keeper.restarts

    # -------------------------------------------------------------- starting

    def start(self) -> None:
        """Start everything up to ready nodes. Raises FarmError, Interrupted; `stop` cleans up after either."""
        records.adopt_orphans()
        records.end_leftovers(self.folder.records, self._say)
        self._choose_ports()
        if self.settings.market != "off" and self.settings.questdb_url is None:
            self._preparation = Preparation(self._say)
        self._say("starting the controller and its PostgreSQL" + self._first_time(self.folder.controller / "postgres"))
        self._keeper.launch(controller_program(self.folder, self.ports))
        self.market = self._choose_market()
        self._choose_store()
        addresses = self._start_exchange()
        self._wait_for_controller()
        self._meet_controller()
        self._join_nodes()
        market = self._market_settings(addresses)
        self._say(f"starting {len(self.settings.node_names)} node daemons")
        link = f"127.0.0.1:{self.ports.link}"
        for number, name in enumerate(self.settings.node_names):
            self._keeper.launch(node_program(self.folder, name, link, market if number == 0 else None))
        self._wait_for_nodes()

    def _choose_ports(self) -> None:
        before = read_json(self.folder.memory)
        remembered = before if isinstance(before, dict) else {}
        gateway = choose_port(self.settings.port)
        if self.settings.port is None and gateway != DEFAULT_PORT:
            self.notes.append(f"Port {DEFAULT_PORT} is taken: the gateway listens on {gateway}.")
            self._say(self.notes[-1])
        link = remembered_port(remembered.get("link_port"))
        self.ports = Ports(gateway, link)
        write_json(self.folder.memory, {**remembered, "link_port": link})

    def _choose_market(self) -> Market:
        market = choose_market(self.settings.market, is_live_reachable)
        self._say(f"market data is {market.words}")
        return market

    def _choose_store(self) -> None:
        """Put the market's own store in place on the node that has one."""
        if self.market.kind is MarketKind.OFF:
            return
        key = market_key(self.market)
        remembered = read_json(self.folder.memory) or {}
        node = self.folder.node(self.settings.node_names[0])
        before = remembered.get("market_store")
        if exchange_shelf(node, before, key):
            self._say(f"market data of the {before} market is set aside in {node / 'markets'}")
        write_json(self.folder.memory, {**remembered, "market_store": key})

    def _start_exchange(self) -> Addresses | None:
        if not self.market.needs_exchange:
            return None
        speed = 0.0 if self.settings.is_once else 1.0
        port = self._exchange_port()
        known = last_trade_ids(self.folder.node(self.settings.node_names[0]))
        program = exchange_program(self.folder, self.market, port=port, speed=speed, seed=SEED, after_trades=known)
        process = self._keeper.start(program, self._wish)
        addresses = announced_addresses(process.said())
        if addresses is not None:
            self.products = addresses.products
        return addresses

    def _exchange_port(self) -> int:
        """The port of before, so that a restarted exchange is found again by the feed."""
        remembered = read_json(self.folder.memory) or {}
        port = remembered_port(remembered.get("exchange_port"))
        write_json(self.folder.memory, {**remembered, "exchange_port": port})
        return port

    def _wait_for_controller(self) -> None:
        """Until it serves; when somebody took its port in the meantime, on another one."""
        for _ in range(PORT_TRIES):
            process = next(process for process in self._keeper.processes if process.name == CONTROLLER)
            try:
                process.wait_until_ready(self._wish)
                return
            except Unavailable:
                is_port_lost = not process.is_running and PORT_LOST in process.said()
                if not is_port_lost or self.settings.port is not None:
                    raise
            self._choose_ports()
            self._keeper.launch(controller_program(self.folder, self.ports))
        raise Unavailable(
            "Every port that was free was taken before the controller could listen.", remedy="Use --port."
        )

    def _meet_controller(self) -> None:
        """Connect to its gateway, and tell the other verbs where it is."""
        token = self.folder.token_file.read_text(encoding="utf-8").strip()
        self._client = FarmClient(Connection(self.ports.server, token, "farmctl dev"), sleep=self._wish.pause)
        self.folder.announce(
            {
                "server": self.ports.server,
                "gateway": self.ports.server,
                "token_file": str(self.folder.token_file),
                "pid": os.getpid(),
                "market": str(self.market.kind),
                "nodes": self.settings.node_names,
            }
        )

    def _join_nodes(self) -> None:
        """Invite and join, side by side, those that are not nodes of this farm yet."""
        new = [name for name in self.settings.node_names if not self._has_joined(name)]
        if not new:
            return
        self._say(f"inviting and joining {', '.join(new)}")
        joining: dict[str, subprocess.Popen[str]] = {}
        for name in new:
            token = str(self.client.post("/v1/nodes/invite", {"name": name})["token"])
            joining[name] = child = subprocess.Popen(
                join_command(self.folder, name), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment(),
            )  # fmt: skip
            assert child.stdin is not None  # it is a pipe
            child.stdin.write(token)  # not on the command line, where every user of the machine could read it
            child.stdin.close()
            child.stdin = None  # communicate() must not touch it again
        deadline = time.monotonic() + JOIN_WITHIN_S
        while any(child.poll() is None for child in joining.values()) and time.monotonic() < deadline:
            self._wish.pause(LOOK_EVERY_S)
        for name, child in joining.items():
            child.kill()
            _, words = child.communicate()
            if child.returncode != 0:
                raise Unavailable(f"{name} could not join the farm: {words.strip() or 'it said nothing'}")

    def _market_settings(self, addresses: Addresses | None) -> dict[str, Any] | None:
        """The first node's market settings; none, with a note, when QuestDB cannot run here."""
        if self._preparation is not None and self.market.kind is not MarketKind.OFF:
            deadline = time.monotonic() + PREPARE_WITHIN_S
            while not self._preparation.is_done and time.monotonic() < deadline:
                self._wish.pause(LOOK_EVERY_S)
            missing = self._preparation.missing
            if missing is not None:
                self.notes.append(f"No market data: {missing.problem} {missing.remedy}")
                self._say(f"{self.notes[-1]}\nThe farm runs without it.")
                self.market = Market(MarketKind.OFF, f"off: {missing.problem}")
        return market_settings(self.market, addresses, self.settings.questdb_url)

    def _wait_for_nodes(self) -> None:
        wanted = set(self.settings.node_names)
        self.wait_for(lambda seen: wanted <= seen.ready_nodes, lambda seen: (
            f"not ready within {NODES_READY_S:.0f} s: {', '.join(sorted(wanted - seen.ready_nodes))}"
        ), NODES_READY_S)  # fmt: skip

    def wait_for(
        self, is_so: Callable[[Glimpse], bool], complaint: Callable[[Glimpse], str], deadline_s: float
    ) -> Glimpse:
        """Look until it is so. Raises Unavailable with the complaint and the tails of the logs; Interrupted."""
        deadline = time.monotonic() + deadline_s
        while True:
            self.keep()
            seen = self.look()
            if seen is not None and is_so(seen):
                return seen
            if time.monotonic() > deadline:
                why = complaint(seen) if seen is not None else "the gateway does not answer"
                tails = "\n".join(process.tail() for process in self._keeper.processes)
                raise Unavailable(
                    f"The farm did not get ready: {why}.\n{tails}", remedy=f"See {self.folder.root}/logs."
                )
            self._wish.pause(LOOK_EVERY_S)

    # -------------------------------------------------------------- running

    def look(self) -> Glimpse | None:
        """The farm now; None while the gateway is away."""
        try:
            return glimpse(self.client)
        except FarmError:
            return None

    def questdb_console(self) -> str | None:
        """Where the node's QuestDB shows itself, and where its password lies; None when there is none."""
        if self.settings.questdb_url is not None:
            return self.settings.questdb_url
        file = self.folder.node(self.settings.node_names[0]) / "questdb" / "endpoint.json"
        said = read_json(file)
        if self.market.kind is MarketKind.OFF or not isinstance(said, dict):
            return None
        return f"http://{said['host']}:{said['http_port']}  (user {said['user']}, password in {file})"

    def keep(self) -> None:
        """Notice and restart what died; write down who lives."""
        self._keeper.look()
        if time.monotonic() - self._written_down_at_s > WRITE_DOWN_EVERY_S:
            self._write_down()
            records.reap(self._own_pids())

    # -------------------------------------------------------------- stopping

    def stop(self) -> list[str]:
        """Stop in order: nodes, exchange, controller. Returns the commands of what was left even so, and ended."""
        if self._preparation is not None:
            self._preparation.stop()
        if self._client is not None:
            self._client.close()
        nodes = [name for name in self._keeper.names if name not in (CONTROLLER, EXCHANGE)]
        for names, words in (
            (nodes, "stopping the node daemons, their replicas, QuestDB and the feed"),
            ([EXCHANGE], "stopping the exchange"),
            ([CONTROLLER], "stopping the controller and its PostgreSQL"),
        ):
            if any(name in self._keeper.names for name in names):
                self._say(words)
                self._keeper.stop(names, self._wish)
        left = records.end_descendants(())
        self.folder.records.unlink(missing_ok=True)
        self.folder.announcement.unlink(missing_ok=True)
        return left

    # -------------------------------------------------------------- what we remember

    def _own_pids(self) -> list[int]:
        own = [process.pid for process in self._keeper.processes]
        return [*own, self._preparation.pid] if self._preparation is not None else own

    def _write_down(self) -> None:
        self._written_down_at_s = time.monotonic()
        records.write_down(self.folder.records, [process.pid for process in self._keeper.processes])

    def _has_joined(self, name: str) -> bool:
        return (self.folder.node(name) / "identity" / "certificate.pem").exists()

    @staticmethod
    def _first_time(path: Path) -> str:
        return "" if path.exists() else " (the first time, it is made: some seconds)"
