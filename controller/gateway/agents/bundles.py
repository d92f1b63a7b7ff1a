"""Bundles over HTTP: content named by its digest, so an upload can be repeated and never replaces anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request
from starlette.responses import Response

from agentfarm.agents.bundle import verify
from agentfarm.errors import InvalidRequest
from agentfarm.limits import DIGEST_PATTERN
from controller.gateway.http.access import BodySize, Call, Permission
from controller.gateway.http.room import Room, TheFarm

room = Room("deployments")

Digest = Annotated[str, Path(pattern=DIGEST_PATTERN, examples=["sha256:" + "ab" * 32])]


@room.route(
    Call("HEAD", "/v1/bundles/{digest}", Permission.AGENTS_DEPLOY),
    operation_id="has_bundle",
    responses={404: {"description": "It is not here."}},
)
async def has(digest: Digest, farm: TheFarm) -> Response:
    """Whether the bundle is here: 200 or 404."""
    return Response(status_code=200 if await farm.history.has_bundle(digest) else 404)


@room.route(
    Call("PUT", "/v1/bundles/{digest}", Permission.AGENTS_DEPLOY, BodySize.BUNDLE),
    status_code=204,
    operation_id="put_bundle",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put(digest: Digest, request: Request, farm: TheFarm) -> Response:
    """Upload a bundle. Refused unless its bytes have the digest it is named by."""
    data = await request.body()
    if not data:
        raise InvalidRequest("The bundle is empty.", remedy="Send the archive's bytes as the body.")
    verify(data, digest)
    await farm.history.put_bundle(digest, data)
    return Response(status_code=204)
