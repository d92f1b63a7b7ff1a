"""What the core does about market products."""

from __future__ import annotations

from typing import Final

from controller.core.commands import AddProducts, RemoveProducts
from controller.core.market import feeders
from controller.core.parts import Part

MARKET: Final = Part("market", commands={AddProducts: feeders.add, RemoveProducts: feeders.remove})
