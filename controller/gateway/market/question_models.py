"""Questions to nodes about their market data, and the lines of their answers."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, ConfigDict, Field

from controller.gateway.http.models import EXAMPLE_TIME, Body, View

PRODUCT = r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"


class FeedVerifyBody(Body):
    """Which nodes, and which of their data. Nothing given: everything on every node with market data."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"product": "BTC-USD", "since": EXAMPLE_TIME}]})

    node: str | None = Field(default=None, description="This node alone; else all that hold the product.")
    product: str | None = Field(default=None, pattern=PRODUCT, max_length=64)
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
