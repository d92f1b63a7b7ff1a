"""The machines of a farm, read from an inventory in the usual all/children/hosts/vars form.

Owns the form, the meaning of nesting (the nearest variable wins) and the check of every key. Touches no machine.

    read_inventory(path) -> Inventory(controllers, nodes)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import yaml

from agentfarm.errors import FarmError, InvalidRequest
from agentfarm.limits import GATEWAY_PORT, LINK_PORT
from agentfarm.names import check_name, nearest

CONTROLLERS: Final = "controllers"
NODES: Final = "nodes"
GROUP_KEYS: Final = ("vars", "hosts", "children")
RANGE_MAX: Final = 1_000
_RANGE: Final = re.compile(r"\[(\d+):(\d+)\]")


@dataclass(frozen=True, slots=True)
class MarketWish:
    """Market data that a node should store."""

    source: str
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """One host of the inventory with everything that its groups say of it."""

    name: str
    address: str
    ssh_user: str = "root"
    ssh_port: int = 22
    data_dir: Path = Path("/var/lib/agentfarm")
    gateway_port: int = GATEWAY_PORT
    link_port: int = LINK_PORT
    public_host: str = ""
    """A controller's name in certificates; its address when empty."""
    database_url: str = ""
    reserve_memory_mib: int = 512
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    market: MarketWish | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The controllers (the first leads, others stand by) and the nodes, in the order of the file."""

    controllers: tuple[Machine, ...]
    nodes: tuple[Machine, ...]


def read_inventory(path: Path) -> Inventory:
    """Read and check a file. Raises InvalidRequest that names the host, the key and the nearest right one."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"The inventory {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"The inventory {path} is not YAML: {error}") from error
    return parse_inventory(raw)


def parse_inventory(raw: Any) -> Inventory:
    """The inventory in a parsed YAML document."""
    if not isinstance(raw, dict) or set(raw) != {"all"}:
        raise InvalidRequest("An inventory begins with one group, `all`.")
    everything = _group("all", raw["all"])
    groups = everything.get("children") or {}
    unknown = sorted(set(groups) - {CONTROLLERS, NODES})
    if unknown:
        raise InvalidRequest(f"all: there is no group {unknown[0]!r}.", remedy=f"Write {CONTROLLERS} or {NODES}.")
    outer = everything.get("vars") or {}
    machines = {name: tuple(_machines(name, groups.get(name), outer)) for name in (CONTROLLERS, NODES)}
    if not machines[CONTROLLERS]:
        raise InvalidRequest("The inventory names no controller.", remedy=f"Give one host under {CONTROLLERS}.")
    _check_unique(machines[CONTROLLERS])
    _check_unique(machines[NODES])
    return Inventory(machines[CONTROLLERS], machines[NODES])


def _machines(name: str, raw: Any, outer: Mapping[str, Any]) -> Iterator[Machine]:
    """The hosts of a group and of the groups within it. The nearest variable wins, whole."""
    group = _group(name, raw)
    variables = {**outer, **(group.get("vars") or {})}
    for pattern, own in (group.get("hosts") or {}).items():
        if own is not None and not isinstance(own, dict):
            raise InvalidRequest(f"{name}: the variables of {pattern} must be keys and values.")
        for host, number in expand(str(pattern)):
            yield _machine(host, number, {**variables, **(own or {})})
    for child, inner in (group.get("children") or {}).items():
        yield from _machines(str(child), inner, variables)


def _group(name: str, raw: Any) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidRequest(f"The group {name} must hold {', '.join(GROUP_KEYS)}.")
    for key, value in raw.items():
        if key not in GROUP_KEYS:
            close = nearest(str(key), GROUP_KEYS)
            raise InvalidRequest(
                f"{name}: there is no key {key!r}.", remedy=f"Did you mean {close!r}?" if close else ""
            )
        if value is not None and not isinstance(value, dict):
            raise InvalidRequest(f"{name}: {key} must hold keys and values.")
    return raw


def expand(pattern: str) -> list[tuple[str, int | None]]:
    """The hosts that a pattern such as `node-[01:30]` stands for, each with its number.

    Leading zeros give the width, as in Ansible. Raises InvalidRequest for a range that is empty or too long.
    """
    match = _RANGE.search(pattern)
    if match is None:
        return [(pattern, None)]
    first, last = int(match.group(1)), int(match.group(2))
    if not 0 <= last - first < RANGE_MAX:
        raise InvalidRequest(f"{pattern}: a range must rise, over at most {RANGE_MAX} hosts.")
    width = len(match.group(1)) if match.group(1).startswith("0") else 0
    return [
        (f"{pattern[: match.start()]}{number:0{width}}{pattern[match.end() :]}", number)
        for number in range(first, last + 1)
    ]


def _machine(name: str, number: int | None, settings: Mapping[str, Any]) -> Machine:
    keys = {item.name for item in fields(Machine)} - {"name"}
    for key in settings:
        if key not in keys:
            close = nearest(str(key), sorted(keys))
            raise InvalidRequest(
                f"{name}: there is no key {key!r}.", remedy=f"Did you mean {close!r}?" if close else ""
            )
    try:
        check_name(name, "host")
        values = {key: _value(key, value) for key, value in settings.items()}
        if number is not None:
            values = {k: v.replace("{n}", str(number)) if isinstance(v, str) else v for k, v in values.items()}
        if not values.get("address"):
            raise ValueError("it has no address")
        return Machine(name, **values)
    except (ValueError, TypeError) as problem:
        raise InvalidRequest(f"{name}: {problem}.") from problem


def _value(key: str, value: Any) -> Any:
    """A variable as its field wants it. Raises ValueError."""
    match key:
        case "ssh_port" | "gateway_port" | "link_port":
            return _whole(key, value, 1, 65_535)
        case "reserve_memory_mib" | "gpus":
            return _whole(key, value, 0, 2**31)
        case "labels":
            if not isinstance(value, dict):
                raise ValueError("labels must be keys and values")
            return {str(name): str(word) for name, word in value.items()}
        case "capabilities":
            return _words(key, value)
        case "market":
            return _market(value)
        case "data_dir":
            return Path(str(value))
        case _:
            if not isinstance(value, str):
                raise ValueError(f"{key} must be a text, not {value!r}")
            return value


def _market(value: Any) -> MarketWish | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"source", "products"}:
        raise ValueError("market must hold source and products")
    return MarketWish(str(value["source"]), _words("market.products", value["products"]))


def _whole(key: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{key} must be a whole number from {low} to {high}, not {value!r}")
    return value


def _words(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{key} must be a list of words")
    return tuple(value)


def _check_unique(machines: tuple[Machine, ...]) -> None:
    seen: set[str] = set()
    for machine in machines:
        if machine.name in seen:
            raise InvalidRequest(f"{machine.name} is in the inventory twice.")
        seen.add(machine.name)


def main(arguments: list[str]) -> int:
    """Print what each machine comes to. 0; 1 when the inventory is wrong."""
    try:
        inventory = read_inventory(Path(arguments[0] if arguments else "inventory.yaml"))
    except FarmError as problem:
        print(problem, file=sys.stderr)
        return 1
    for role, machines in ((CONTROLLERS, inventory.controllers), (NODES, inventory.nodes)):
        print(f"{role}: {len(machines)}")
        for machine in machines:
            market = f" · {machine.market.source} {','.join(machine.market.products)}" if machine.market else ""
            labels = "".join(f" {key}={value}" for key, value in machine.labels.items())
            print(f"  {machine.name:<12} {machine.ssh_user}@{machine.address}{labels}{market}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
