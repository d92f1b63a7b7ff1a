"""The programs of a farm, as words: commands, settings files, and the sign that each one serves. Starts nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from farmctl.dev.folder import FarmFolder, read_json
from farmctl.dev.market.choice import Market, MarketKind
from farmctl.dev.processes.ports import LOOPBACK
from farmctl.dev.processes.process import Process, Program

CONTROLLER_READY_S: Final = 180.0
"""The first start makes a PostgreSQL cluster; one after a power cut replays its log."""
CONTROLLER_STOP_S: Final = 30.0
NODE_STOP_S: Final = 40.0
"""It ends replicas, the feed and QuestDB in order; each has deadlines of its own below this."""
EXCHANGE_STOP_S: Final = 5.0
CONTROLLER: Final = "controller"
EXCHANGE: Final = "exchange"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the controller listens."""

    gateway: int
    link: int

    @property
    def server(self) -> str:
        return f"http://{LOOPBACK}:{self.gateway}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a simulated exchange announced."""

    ws_url: str
    rest_url: str
    products: tuple[str, ...]


def controller_program(folder: FarmFolder, ports: Ports) -> Program:
    """The controller with its embedded PostgreSQL; its settings are written now."""
    settings = {
        "data_dir": str(folder.controller),
        "gateway_port": ports.gateway,
        "link_port": ports.link,
        "public_host": LOOPBACK,
    }
    config = _write_yaml(folder.config(CONTROLLER), settings)
    announced = folder.controller / "controller.json"

    def is_ready(process: Process) -> bool:
        announcement = read_json(announced)
        return isinstance(announcement, dict) and announcement.get("pid") == process.pid

    return Program(
        CONTROLLER,
        (sys.executable, "-m", "controller.main", "--config", str(config)),
        folder.log(CONTROLLER),
        is_ready,
        CONTROLLER_READY_S,
        CONTROLLER_STOP_S,
    )


def exchange_program(
    folder: FarmFolder,
    products: Sequence[str],
    *,
    protocol: str,
    port: int,
    seed: int,
    after_trades: Mapping[str, int],
) -> Program:
    """An exchange on loopback with a generated market. after_trades: what it goes on from."""
    command = [sys.executable, "-m", "nodeagent.market.exchange", "--port", str(port), "--seed", str(seed)]
    command += ["--protocol", protocol, "--products", ",".join(products)]
    if after_trades:
        command += ["--after-trades", ",".join(f"{name}={number}" for name, number in after_trades.items())]
    return Program(
        EXCHANGE,
        tuple(command),
        folder.log(EXCHANGE),
        lambda process: announced_addresses(process.output()) is not None,
        ready_within_s=60.0,
        stop_within_s=EXCHANGE_STOP_S,
    )


def announced_addresses(output: str) -> Addresses | None:
    """The addresses an exchange wrote to its output, once it has."""
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                announcement = json.loads(line)
                return Addresses(announcement["ws_url"], announcement["rest_url"], tuple(announcement["products"]))
            except (ValueError, KeyError):
                continue
    return None


def join_command(folder: FarmFolder, name: str) -> list[str]:
    """What makes this machine a node of the farm, once. It reads its invitation from standard input."""
    data_dir = str(folder.node(name))
    return [sys.executable, "-m", "nodeagent.main", "join", "-", "--data-dir", data_dir]


def node_program(folder: FarmFolder, name: str, link: str, market: dict[str, Any] | None) -> Program:
    """A node daemon; its settings are written now. `link`: the controller's address, now."""
    settings: dict[str, Any] = {
        "data_dir": str(folder.node(name)),
        "link": link,
        "metrics_port": 0,
        "stop_replicas_on_exit": True,
    }
    if market is not None:
        settings["market"] = market
    config = _write_yaml(folder.config(name), settings)
    return Program(
        name,
        (sys.executable, "-m", "nodeagent.main", "run", "--config", str(config)),
        folder.log(name),
        stop_within_s=NODE_STOP_S,
    )


def market_settings(
    market: Market, products: Sequence[str], addresses: Addresses | None, questdb_url: str | None, *, speed: float
) -> dict[str, Any] | None:
    """A node's `market` settings; None when there is to be no market data. speed: of a recording."""
    if market.kind is MarketKind.OFF:
        return None
    takes_more = market.capture is None  # a recording holds what it holds
    settings: dict[str, Any] = {"kind": str(market.kind), "products": list(products), "takes_products": takes_more}
    if market.capture is None:
        settings["feed"] = {"source": market.source}
    if addresses is not None:
        settings["feed"] |= {"ws_url": addresses.ws_url, "rest_url": addresses.rest_url}
    if market.capture is not None:
        settings["feed"] = {"source": "capture", "recording": str(market.capture), "speed": speed}
    if questdb_url is not None:
        settings["questdb_url"] = questdb_url
    return settings


def _write_yaml(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path
