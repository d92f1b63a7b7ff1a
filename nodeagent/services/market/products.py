"""The market products that the controller gave this node, remembered: a daemon that starts while the controller is away
goes on feeding the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from agentfarm.files import read_or_set_aside, write_private
from nodeagent.machine.logging import log


class AssignedProducts:
    """A list in a file. What the disk does not take is remembered until the daemon ends, and written with the next
    change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.products = self._read()

    def take(self, products: Iterable[str]) -> bool:
        """These are assigned now. Returns whether that is a change."""
        assigned = tuple(dict.fromkeys(product for product in products if product))
        if assigned == self.products:
            return False
        self.products = assigned
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._path, json.dumps({"products": assigned}).encode())
        except OSError as problem:
            log.warning("market.assigned_not_written", path=str(self._path), problem=str(problem))
        return True

    def _read(self) -> tuple[str, ...]:
        """As it was left; nothing when there is no file. A damaged one is set aside: the controller says it again."""
        try:
            return read_or_set_aside(self._path, _names, on_damage=_complain) or ()
        except OSError as problem:
            log.warning("market.assigned_not_read", path=str(self._path), problem=str(problem))
            return ()


def _names(content: bytes) -> tuple[str, ...]:
    names = json.loads(content)["products"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("it is not a list of names")
    return tuple(names)


def _complain(aside: Path, problem: Exception) -> None:
    log.warning("market.assigned_damaged", set_aside=str(aside), problem=str(problem))
