"""The farm on this machine: started in order, kept running, stopped in the opposite order.

```
controller ────┬─▶ invite, join ─┬─▶ node-1 + QuestDB + feed
market choice ─┤   (first time)  ├─▶ node-2                    ─▶ agents ─▶ ready
QuestDB jar ───┘                 └─▶ node-3
```
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import FarmError, Unavailable
from farmctl.api.client import FarmClient
from farmctl.api.connection import Connection
from farmctl.dev.command import DevSettings
from farmctl.dev.folder import FarmFolder, read_json, write_json
from farmctl.dev.market.choice import Market
from farmctl.dev.market.supply import Feeding
from farmctl.dev.nodes import has_joined, join_nodes
from farmctl.dev.processes import records
from farmctl.dev.processes.keeper import Keeper
from farmctl.dev.processes.ports import DEFAULT_PORT, LOOPBACK, choose_port, remembered_port
from farmctl.dev.processes.programs import CONTROLLER, EXCHANGE, Ports, controller_program, node_program
from farmctl.dev.snapshot import Glimpse, glimpse
from farmctl.dev.stop import StopWish

NODES_READY_S: Final = 60.0
PORT_TRIES: Final = 5
PORT_LOST: Final = "Address already in use"
LOOK_EVERY_S: Final = 0.1
WRITE_DOWN_EVERY_S: Final = 2.0


class DevFarm:
    """One farm. `say` hears every step, in words."""

    def __init__(self, settings: DevSettings, folder: FarmFolder, wish: StopWish, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.folder = folder
        self.notes: list[str] = []
        """What a person should read again at the end of the start."""
        self.feeding = Feeding(settings, folder, wish, say, self.notes)
        self.ports = Ports(0, 0)
        self._wish = wish
        self._say = say
        self._keeper = Keeper(say, started=self._write_down)
        self._client: FarmClient | None = None
        self._written_down_at_s = 0.0

    @property
    def client(self) -> FarmClient:
        """The gateway; valid once the controller runs."""
        assert self._client is not None, "the controller was not started"
        return self._client

    @property
    def market(self) -> Market:
        """The chosen market, or the one that took its place when it was not available."""
        return self.feeding.market

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
        self.feeding.begin()
        self._say("starting the controller and its PostgreSQL" + _first_time(self.folder.controller / "postgres"))
        self._keeper.launch(controller_program(self.folder, self.ports))
        market = self.feeding.start(self._keeper)
        joined = [name for name in self.settings.node_names if has_joined(self.folder, name)]
        new = [name for name in self.settings.node_names if name not in joined]
        self._launch_nodes(joined, market)  # they find the controller as soon as it serves
        link = self.ports.link
        self._wait_for_controller()
        if self.ports.link != link:
            self._keeper.stop(joined, self._wish)
            self._launch_nodes(joined, market)
        self._meet_controller()
        if new:
            self._say(f"inviting and joining {', '.join(new)}")
            join_nodes(self.client, self.folder, new, self._wish)
            self._launch_nodes(new, market)
        self._wait_for_nodes()
        self._write_down()

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

    def _launch_nodes(self, names: Sequence[str], market: dict[str, Any] | None) -> None:
        """Start daemons; the first node is the one with market data."""
        if names:
            self._say(f"starting the daemons of {', '.join(names)}")
        for name in names:
            own_market = market if name == self.settings.node_names[0] else None
            self._keeper.launch(node_program(self.folder, name, f"{LOOPBACK}:{self.ports.link}", own_market))

    def _wait_for_controller(self) -> None:
        """Wait until it serves. If another program took its port meanwhile, start it on another one."""
        for _ in range(PORT_TRIES):
            process = next(process for process in self._keeper.processes if process.name == CONTROLLER)
            try:
                process.wait_until_ready(self._wish)
                return
            except Unavailable:
                is_port_lost = not process.is_running and PORT_LOST in process.output()
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
                "token_file": str(self.folder.token_file),
                "pid": os.getpid(),
                "market": str(self.market.kind),
                "nodes": self.settings.node_names,
            }
        )

    def _wait_for_nodes(self) -> None:
        names = set(self.settings.node_names)
        self.wait_for(lambda seen: names <= seen.ready_nodes, lambda seen: (
            f"not ready within {NODES_READY_S:.0f} s: {', '.join(sorted(names - seen.ready_nodes))}"
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

    def keep(self) -> None:
        """Notice and restart what died; write down who lives."""
        self._keeper.look()
        if time.monotonic() - self._written_down_at_s > WRITE_DOWN_EVERY_S:
            self._write_down()
            records.reap(self._own_pids())

    # -------------------------------------------------------------- stopping

    def stop(self) -> list[str]:
        """Stop in order: nodes, exchange, controller. Ends what is still left, and returns its commands."""
        self.feeding.stop()
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
        return [*(process.pid for process in self._keeper.processes), *self.feeding.pids]

    def _write_down(self) -> None:
        self._written_down_at_s = time.monotonic()
        records.write_down(self.folder.records, [process.pid for process in self._keeper.processes])


def _first_time(path: Path) -> str:
    return "" if path.exists() else " (the first time, it is made: some seconds)"
