"""How a route gets what it may use: `farm: TheFarm` among its parameters."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from controller.gateway.scope import Farm


async def _farm_of(request: Request) -> Farm:
    return cast("Farm", request.app.state.farm)


TheFarm = Annotated[Farm, Depends(_farm_of)]
