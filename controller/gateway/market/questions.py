"""Market data on the nodes over HTTP: which holes there were, whether all is stored, and storing it again.

The nodes answer in lines, for as long as they need; the gateway asks several at once and passes their lines on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import AwareDatetime
from starlette.responses import Response

from agentfarm.errors import InvalidRequest, NotFound, Unavailable
from agentfarm.limits import PRODUCT_NAME_CHARS_MAX, PRODUCT_PATTERN
from agentfarm.names import suggestion
from controller.core.model import FarmState, Node, NodeName
from controller.gateway.http import sse
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.room import Room, TheFarm, body_of
from controller.gateway.market.fan_out import lines_of_all
from controller.gateway.market.models import FeedLine, FeedReplayBody, FeedVerifyBody
from controller.gateway.prefixes import find_node
from controller.gateway.scope import Farm

room = Room("market")

SERVICE: Final = "market"
NDJSON: Final = "application/x-ndjson"
ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {NDJSON: {}}}}


@room.route(
    Call("GET", "/v1/market/gaps", Permission.FARM_READ),
    response_model=FeedLine,
    operation_id="list_gaps",
    responses=ANSWER,
)
async def gaps(
    farm: TheFarm,
    product: Annotated[str | None, Query(pattern=PRODUCT_PATTERN, max_length=PRODUCT_NAME_CHARS_MAX)] = None,
    node: Annotated[str | None, Query(description="This node alone.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Found since then, or still open.")] = None,
    is_open: Annotated[bool, Query(alias="open", description="Those that are open, whatever their age.")] = False,
) -> Response:
    """Holes that feeds have found, and when they were repaired: NDJSON, a `gap` a line."""
    arguments = {"product": product, "since": _text(since), "open": is_open}
    return await _answer(farm, "gaps", node, product, arguments)


@room.route(
    Call("POST", "/v1/market/verify", Permission.MARKET_MANAGE),
    response_model=FeedLine,
    operation_id="verify_market",
    responses=ANSWER,
)
async def verify(body: Annotated[FeedVerifyBody, body_of(FeedVerifyBody, is_optional=True)], farm: TheFarm) -> Response:
    """Hold what QuestDB has against what the capture has, on the nodes: NDJSON, a `product` a line."""
    arguments = {"product": body.product, "since": _text(body.since)}
    return await _answer(farm, "verify", body.node, body.product, arguments)


@room.route(
    Call("POST", "/v1/market/replay", Permission.MARKET_MANAGE),
    response_model=FeedLine,
    operation_id="replay_market",
    responses=ANSWER,
)
async def replay(body: Annotated[FeedReplayBody, body_of(FeedReplayBody)], farm: TheFarm) -> Response:
    """Store what the capture holds again. Harmless where it is stored already; it repairs what was lost."""
    if body.node is None and body.product is None:
        raise InvalidRequest("Neither a node nor a product is named.", remedy="Name the node whose data to repair.")
    if body.since is not None and body.until is not None and body.until <= body.since:
        raise InvalidRequest("'until' is not after 'since'.", remedy="Give a time that begins before it ends.")
    arguments = {"product": body.product, "since": _text(body.since), "until": _text(body.until)}
    return await _answer(farm, "replay", body.node, body.product, arguments)


async def _answer(farm: Farm, verb: str, node: str | None, product: str | None, arguments: dict[str, Any]) -> Response:
    sse.check_room()
    if farm.services is None:
        raise Unavailable("This controller has no link to nodes.", remedy="Ask the node itself.")
    names = _nodes(farm.state, node, product)
    question = {"verb": verb, "arguments": {key: value for key, value in arguments.items() if value}}
    answers = {name: aiter(farm.services.ask(name, SERVICE, question)) for name in names}
    if len(names) == 1:  # a node that refuses is a status, not a broken stream
        answers[names[0]] = _after(await anext(answers[names[0]], b""), answers[names[0]])
    return sse.StreamedAnswer(lines_of_all(answers), NDJSON, b"\n")


def _nodes(state: FarmState, node: str | None, product: str | None) -> list[NodeName]:
    """The nodes to ask. Raises NotFound when there are none, with the nearest product."""
    if node is not None:
        return [find_node(state, node)]
    nodes = {name: each for name, each in sorted(state.nodes.items()) if _has_market(each)}
    names = [name for name, each in nodes.items() if product is None or product in _products(each)]
    if names:
        return names
    if product is None or not nodes:
        raise NotFound("No node has market data.", remedy="Set 'market' in a node's settings: docs/market-data.md.")
    products = sorted({name for each in nodes.values() for name in _products(each)})
    hint = suggestion(product, products) or "See: farmctl feed status. A product of earlier is asked for with its node."
    raise NotFound(f"No node holds {product!r} now.", remedy=hint)


def _has_market(node: Node) -> bool:
    return bool(_products(node) or (node.measured is not None and node.measured.market_state))


def _products(node: Node) -> set[str]:
    """What it feeds, or is to feed."""
    return {*node.products, *node.assigned, *(node.fed or {})}


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _text(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment is not None else ""
