"""Where the farm's market data comes from in this run: the choice, its store, the exchange, and what QuestDB needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from farmctl.dev.command import DevSettings
from farmctl.dev.folder import FarmFolder, read_json, write_json
from farmctl.dev.market.choice import (
    COINBASE,
    PRODUCTS,
    PROTOCOLS,
    Market,
    MarketKind,
    choose_market,
    is_live_reachable,
    recorded_products,
)
from farmctl.dev.market.questdb import Preparation
from farmctl.dev.market.shelf import exchange_shelf, last_trade_ids, market_key
from farmctl.dev.processes.keeper import Keeper
from farmctl.dev.processes.ports import remembered_port
from farmctl.dev.processes.programs import announced_addresses, exchange_program, market_settings
from farmctl.dev.stop import StopWish

PREPARE_WITHIN_S: Final = 600.0
LOOK_EVERY_S: Final = 0.1
SEED: Final = 1


class Feeding:
    """Market data of the first node. `notes` holds what a person should know at the end of the start too."""

    def __init__(
        self, settings: DevSettings, folder: FarmFolder, wish: StopWish, say: Callable[[str], None], notes: list[str]
    ) -> None:
        self.market = Market(MarketKind.OFF, "off")
        self.products: tuple[str, ...] = PRODUCTS[COINBASE]
        self._settings = settings
        self._folder = folder
        self._node = folder.node(settings.node_names[0])
        self._wish = wish
        self._say = say
        self._notes = notes
        self._preparation: Preparation | None = None

    def begin(self) -> None:
        """Start what may take long, in the background."""
        if self._settings.market != "off" and self._settings.questdb_url is None:
            self._preparation = Preparation(self._say)

    def start(self, keeper: Keeper) -> dict[str, Any] | None:
        """Choose the market, put its store in place, start its exchange if it needs one, see that QuestDB can run.

        Returns the node's `market` settings; None when there is to be no market data, or, with a note, can be none.
        """
        self.market = choose_market(self._settings.market, is_live_reachable)
        self._say(f"market data is {self.market.words}")
        if self.market.kind is MarketKind.OFF or not self._can_run():
            return None
        self._choose_store()
        self.products = PRODUCTS[self.market.source]
        addresses = None
        if self.market.needs_exchange:
            process = keeper.start(self._exchange(), self._wish)
            addresses = announced_addresses(process.output())
            assert addresses is not None  # it is ready once it has announced them
            self.products = addresses.products
        if self.market.capture is not None:
            self.products = recorded_products(self.market.capture)
        speed = 0.0 if self._settings.is_once else 1.0
        return market_settings(self.market, self.products, addresses, self._settings.questdb_url, speed=speed)

    def console(self) -> str | None:
        """Where QuestDB shows itself, and where its password lies; None when there is none."""
        if self._settings.questdb_url is not None:
            return self._settings.questdb_url
        file = self._node / "questdb" / "endpoint.json"
        endpoint = read_json(file)
        if self.market.kind is MarketKind.OFF or not isinstance(endpoint, dict):
            return None
        return f"http://{endpoint['host']}:{endpoint['http_port']}  (user {endpoint['user']}, password in {file})"

    @property
    def pids(self) -> list[int]:
        """Processes of its own that are waited for here."""
        return [self._preparation.pid] if self._preparation is not None else []

    def stop(self) -> None:
        """Give up what is still being prepared. Safe twice."""
        if self._preparation is not None:
            self._preparation.stop()

    def _can_run(self) -> bool:
        """Wait for Java and the jar; without them there is no market data, and a note says what to do."""
        if self._preparation is None:
            return True
        deadline = time.monotonic() + PREPARE_WITHIN_S
        while not self._preparation.is_done and time.monotonic() < deadline:
            self._wish.pause(LOOK_EVERY_S)
        missing = self._preparation.missing
        if missing is None:
            return True
        self._notes.append(f"No market data: {missing.problem} {missing.remedy}")
        self._say(f"{self._notes[-1]}\nThe farm runs without it.")
        self.market = Market(MarketKind.OFF, f"off: {missing.problem}")
        return False

    def _choose_store(self) -> None:
        """Put the market's own store in place on the node."""
        key = market_key(self.market)
        remembered = read_json(self._folder.memory) or {}
        before = remembered.get("market_store")
        if exchange_shelf(self._node, before, key):
            self._say(f"market data of the {before} market is set aside in {self._node / 'markets'}")
        write_json(self._folder.memory, {**remembered, "market_store": key})

    def _exchange(self) -> Any:
        """The exchange, on the port of before, and with generated trades that go on where they ended."""
        remembered = read_json(self._folder.memory) or {}
        port = remembered_port(remembered.get("exchange_port"))
        write_json(self._folder.memory, {**remembered, "exchange_port": port})
        last_ids = last_trade_ids(self._node)
        protocol = PROTOCOLS[self.market.source]
        return exchange_program(
            self._folder, self.products, protocol=protocol, port=port, seed=SEED, after_trades=last_ids
        )
