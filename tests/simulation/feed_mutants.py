"""Mutants of the assignment of market products: see mutants.py, which takes them into its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from controller.core import turn
from controller.core.agents import seats as seating
from controller.core.market import feeders as feeding
from controller.core.market.products import Feeder
from controller.core.model import FarmState, Instant, Limits, Node
from controller.core.nodes import life as nodes
from controller.core.transition import SetDesired
from controller.journal.memory import MemoryJournal

FEED_MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def mutant(make: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Register a mutant under its name."""
    made = FEED_MUTANTS[make.__name__] = contextmanager(make)
    return made


@mutant
def products_of_a_lost_node_are_forgotten() -> Iterator[None]:
    """They are taken from it and given to nobody."""
    real = nodes._lose

    def lose(now: turn.Turn, node: Node, silent_s: float) -> None:
        real(now, node, silent_s)
        for name in node.assigned:
            product = now.state.products[name]
            product.nodes.discard(node.name)
            now.changed(product)
        node.assigned.clear()
        now.is_feeding = False

    with patch.object(nodes, "_lose", lose):
        yield


@mutant
def products_of_a_lost_node_stay_with_it() -> Iterator[None]:
    real = feeding._feeder

    def feeder(node: Node) -> Feeder:
        return dataclasses.replace(real(node), is_gone=False)

    with patch.object(feeding, "_feeder", feeder):
        yield


@mutant
def drained_node_stops_feeding_at_once() -> Iterator[None]:
    """Its successor is not good yet."""
    real = feeding._feeder

    def feeder(node: Node) -> Feeder:
        made = real(node)
        return dataclasses.replace(made, is_forced=made.is_leaving)

    with patch.object(feeding, "_feeder", feeder):
        yield


@mutant
def new_controller_shares_products_out_anew() -> Iterator[None]:
    """Who feeds what is not read back."""
    real = MemoryJournal.load

    def load(self: MemoryJournal, limits: Limits, now: Instant) -> FarmState:
        state = real(self, limits, now)
        for product in state.products.values():
            product.nodes.clear()
        for node in state.nodes.values():
            node.assigned.clear()
        return state

    with patch.object(MemoryJournal, "load", load):
        yield


@mutant
def node_is_not_told_what_it_feeds_no_more() -> Iterator[None]:
    """A list without products says nothing of them, and the feed goes on."""

    def desired(*arguments: Any) -> SetDesired:
        made = SetDesired(*arguments)
        return made if made.products else dataclasses.replace(made, products=None)

    with patch.object(seating, "SetDesired", desired):
        yield
