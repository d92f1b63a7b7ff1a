"""Market products over HTTP: which are fed across the farm, by how many nodes, and how they do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from controller.core.commands import AddProducts, NewProduct, RemoveProducts
from controller.core.model import ProductName
from controller.explain.products import product_row, product_rows
from controller.gateway.http.answers import json_response
from controller.gateway.http.bodies import body_of, read_model
from controller.gateway.http.limits import ENGINE_DEADLINE_S
from controller.gateway.http.prefixes import find_product
from controller.gateway.market.models import FeedAnswer, FeedBody, ProductList
from controller.gateway.the_farm import TheFarm

router = APIRouter(prefix="/v1/market/products", tags=["market"])

Name = Annotated[str, Path(examples=["BTC-USD"])]


@router.get("", response_model=ProductList, operation_id="list_products")
async def list_products(farm: TheFarm) -> Response:
    """Every product that is fed or should be, and how each of its nodes does."""
    return json_response({"products": product_rows(farm.state)})


@router.put("", response_model=FeedAnswer, openapi_extra=body_of(FeedBody), operation_id="feed_products")
async def feed(request: Request, farm: TheFarm) -> Response:
    """Have products fed, or change how many nodes feed them. Equal calls change nothing. All or none."""
    body = await read_model(request, FeedBody)
    new = tuple(NewProduct(ProductName(name), body.source, body.copies) for name in dict.fromkeys(body.products))
    changed = await farm.engine.ask(AddProducts(new), deadline_s=ENGINE_DEADLINE_S)
    state = farm.state
    rows = [product_row(state, it.name) for it in new]
    return json_response({"products": rows, "changed": changed})


@router.delete("/{name:path}", status_code=204, operation_id="remove_product")
async def remove(name: Name, farm: TheFarm) -> Response:
    """Have a product fed no more, but by nodes whose own settings name it. Needs its whole name. Stored data stays."""
    product = find_product(farm.state, name)
    await farm.engine.ask(RemoveProducts((product,)), deadline_s=ENGINE_DEADLINE_S)
    return Response(status_code=204)
