"""What the core does about market products."""

from __future__ import annotations

from typing import Final

from controller.core.commands import AddProducts, RemoveProducts
from controller.core.market import feeders
from controller.core.model import Product
from controller.core.records import Table
from controller.core.turn import Part

MARKET: Final = Part(
    "market",
    tables=(
        Table(Product, "product", "name", things=lambda state: state.products.values(),
              put=lambda state, product: state.products.update({product.name: product})),
    ),
    commands={AddProducts: feeders.add, RemoveProducts: feeders.remove},
)  # fmt: skip
