"""Market products over HTTP: which are fed across the farm, by how many nodes, and how they do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from controller.core.commands import AddProducts, NewProduct, RemoveProducts
from controller.core.model import ProductName
from controller.explain.products import explain_product, fed_product, fed_products
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.room import Caller, Room, TheFarm, body_of
from controller.gateway.market.models import ExplainProductView, FeedAnswer, FeedBody, ProductList
from controller.gateway.market.views import product_explanation_view, product_view
from controller.gateway.prefixes import find_product

room = Room("market")

Name = Annotated[str, Path(examples=["BTC-USD"])]


@room.route(
    Call("GET", "/v1/market/products", Permission.FARM_READ), response_model=ProductList, operation_id="list_products"
)
async def list_products(farm: TheFarm) -> Response:
    """Every product that is fed or should be, and how each of its nodes does."""
    return json_response({"products": [product_view(product) for product in fed_products(farm.state)]})


@room.route(
    Call("PUT", "/v1/market/products", Permission.MARKET_MANAGE),
    response_model=FeedAnswer,
    operation_id="feed_products",
)
async def feed(body: Annotated[FeedBody, body_of(FeedBody)], farm: TheFarm, caller: Caller) -> Response:
    """Have products fed, or change how many nodes feed them. Equal calls change nothing. All or none."""
    new = tuple(NewProduct(ProductName(name), body.source, body.copies) for name in dict.fromkeys(body.products))
    changed = await farm.ask(AddProducts(new, actor=caller.name))
    state = farm.state
    products = [product_view(fed_product(state, wish.name)) for wish in new]
    return json_response({"products": products, "changed": changed})


@room.route(
    Call("DELETE", "/v1/market/products/{name:path}", Permission.MARKET_MANAGE),
    status_code=204,
    operation_id="remove_product",
)
async def remove(name: Name, farm: TheFarm, caller: Caller) -> Response:
    """Have a product fed no more, but by nodes whose own settings name it. Needs its whole name. Stored data stays."""
    product = find_product(farm.state, name)
    await farm.ask(RemoveProducts((product,), actor=caller.name))
    return Response(status_code=204)


@room.route(
    Call("GET", "/v1/explain/product/{id:path}", Permission.FARM_READ),
    tag="explain",
    response_model=ExplainProductView,
    operation_id="explain_product",
)
async def explain(name: Annotated[str, Path(alias="id", examples=["BTC-USD"])], farm: TheFarm) -> Response:
    """Why a product is fed where it is: its copies, and every node with its reasons."""
    state = farm.state
    return json_response(product_explanation_view(explain_product(state, find_product(state, name))))
