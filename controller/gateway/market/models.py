"""Market products that are assigned across the farm."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from controller.core.model import COPIES_MAX, PRODUCT_NAME_MAX_CHARS
from controller.gateway.agents.models import NodeReasons
from controller.gateway.http.limits import FEED_PRODUCTS_MAX
from controller.gateway.http.models import Body, View

ProductWord = Annotated[str, StringConstraints(min_length=1, max_length=PRODUCT_NAME_MAX_CHARS)]


class FeedBody(Body):
    """Products to feed. What is not given stays as it is; a new product gets one copy, from any source."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"products": ["BTC-USD", "ETH-USD"], "copies": 2}]})

    products: list[ProductWord] = Field(min_length=1, max_length=FEED_PRODUCTS_MAX)
    copies: int | None = Field(default=None, ge=1, le=COPIES_MAX, description="Nodes that feed each, at once.")
    source: str | None = Field(
        default=None, max_length=PRODUCT_NAME_MAX_CHARS, description="Only nodes whose feed has this source; '': any."
    )


class ProductNode(View):
    """How one node feeds a product, by the word of its feed."""

    node: str = Field(examples=["node-2"])
    state: str = Field(
        description="starting, good, doubtful or failed; unsaid: told, no word yet; silent: the node is not heard",
        examples=["good"],
    )
    reason: str = ""
    is_assigned: bool = Field(description="False: the node's own settings name it.", examples=[True])
    is_leaving: bool = Field(default=False, description="The node is drained: it feeds on until another is good.")


class ProductView(View):
    """A product that is fed, or should be."""

    name: str = Field(examples=["BTC-USD"])
    source: str = Field(default="", description="Empty: any.", examples=["coinbase-advanced"])
    copies: int | None = Field(description="Nodes wanted; none: only nodes' own settings name it.", examples=[2])
    missing: int = Field(default=0, description="Copies that no node can take now.")
    is_good: bool = Field(description="As many nodes as wanted feed it well now.", examples=[True])
    nodes: list[ProductNode]


class ProductList(View):
    products: list[ProductView]


class FeedAnswer(ProductList):
    """The products named, as they stand now."""

    changed: list[str] = Field(description="Those that are new or changed.", examples=[["BTC-USD"]])


class ProductMove(View):
    """What a drain would do with one product."""

    product: str = Field(examples=["BTC-USD"])
    from_: str = Field(alias="from", examples=["node-2"])
    to: str | None = Field(default=None, description="None: no node can take it, or none has to.", examples=["node-3"])
    action: str = Field(description="move, or stop where other nodes feed it anyway", examples=["move"])


class ExplainProductView(View):
    """Why a product is fed where it is."""

    product: str = Field(examples=["BTC-USD"])
    because: str = Field(examples=["every copy is good"])
    source: str = ""
    copies: int = Field(examples=[2])
    missing: int = 0
    copies_now: list[ProductNode]
    nodes: list[NodeReasons] = Field(description="Every node: whether it could take one more copy, with every reason.")
