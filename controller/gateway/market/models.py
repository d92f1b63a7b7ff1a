"""Market products that are assigned across the farm, and questions to nodes about their market data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from agentfarm.limits import PRODUCT_NAME_CHARS_MAX, PRODUCT_PATTERN
from controller.core.model import COPIES_MAX
from controller.gateway.agents.models import NodeReasons
from controller.gateway.http.limits import FEED_PRODUCTS_MAX
from controller.gateway.http.models import EXAMPLE_TIME, Body, View

ProductWord = Annotated[str, StringConstraints(min_length=1, max_length=PRODUCT_NAME_CHARS_MAX)]


class FeedBody(Body):
    """Products to feed. What is not given stays as it is; a new product gets one copy, from any source."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"products": ["BTC-USD", "ETH-USD"], "copies": 2}]})

    products: list[ProductWord] = Field(min_length=1, max_length=FEED_PRODUCTS_MAX)
    copies: int | None = Field(default=None, ge=1, le=COPIES_MAX, description="Nodes that feed each, at once.")
    source: str | None = Field(
        default=None, max_length=PRODUCT_NAME_CHARS_MAX, description="Only nodes whose feed has this source; '': any."
    )


class ProductNode(View):
    """How one node feeds a product, by the word of its feed."""

    node: str = Field(examples=["node-2"])
    state: str = Field(
        description="starting, good, doubtful or failed; unsaid: asked, no report yet; silent: the node is not heard",
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


# ------------------------------------------------------------------ questions


class FeedVerifyBody(Body):
    """Which nodes, and which of their data. Nothing given: everything on every node with market data."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"product": "BTC-USD", "since": EXAMPLE_TIME}]})

    node: str | None = Field(default=None, description="This node alone; else all that hold the product.")
    product: str | None = Field(default=None, pattern=PRODUCT_PATTERN, max_length=PRODUCT_NAME_CHARS_MAX)
    since: AwareDatetime | None = Field(default=None, description="What was received before is not looked at.")


class FeedReplayBody(FeedVerifyBody):
    """What to store again from the capture. A node or a product must be named."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"node": "node-1", "since": EXAMPLE_TIME, "until": EXAMPLE_TIME}]}
    )

    until: AwareDatetime | None = Field(default=None, description="Until this time of receipt, that one left out.")


class FeedLine(View):
    """A line of the answer. `event` says which other keys it has; docs/market-data.md lists them."""

    event: str = Field(
        description="`started`, `progress`, a finding (`gap`, `product`), `done`, `problem`; last `end`, of no node.",
        examples=["progress"],
    )
    node: str | None = Field(default=None, examples=["node-1"])
    problem: dict[str, Any] | None = None
