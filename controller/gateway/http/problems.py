"""Errors as RFC 9457 problem details, the only form in which the gateway says no.

    {"type": "urn:agentfarm:problem:not_found", "title": "Not found", "status": 404,
     "detail": "…", "remedy": "…", "code": "not_found"}

What a FarmError carries as data stands beside them. Of an unexpected error a caller learns a correlation id and
nothing more; the log has the rest under the same id.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import orjson
import structlog
from starlette.responses import Response

from agentfarm.errors import FarmError, Unavailable, http_status
from controller.gateway.http.limits import RETRY_AFTER_S

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:agentfarm:problem:"

TITLES: Final = {
    "invalid_request": "The request is not valid",
    "too_large": "The request is too large",
    "not_found": "Not found",
    "head_too_large": "The head of the request is too large",
    "head_too_slow": "The head of the request came too slowly",
    "misdirected": "Not a name of this gateway",
    "unauthorized": "No valid token",
    "forbidden": "Not allowed",
    "method_not_allowed": "Method not allowed",
    "conflict": "In conflict with the present state",
    "stale_token": "The lease is gone",
    "cannot_place": "Nothing fits",
    "unavailable": "Something the farm depends on is away",
    "internal": "The farm made a mistake",
}

log = structlog.get_logger("gateway")


class TooLarge(FarmError):
    """A body or payload beyond a named limit. 413, but otherwise a wrong request."""

    code = "too_large"


class Unauthorized(FarmError):
    """No token, or not ours."""

    code = "unauthorized"


class HeadTooLarge(FarmError):
    """A head beyond a named limit."""

    code = "head_too_large"


class HeadTooSlow(FarmError):
    """A head that did not come in time."""

    code = "head_too_slow"


class Misdirected(FarmError):
    """A request for a host that is not ours."""

    code = "misdirected"


_STATUS_BY_CODE: Final = {
    "too_large": 413, "unauthorized": 401, "method_not_allowed": 405, "head_too_large": 431, "head_too_slow": 408,
    "misdirected": 421,
}  # fmt: skip


def status_of(error: FarmError) -> int:
    """The HTTP status of an error."""
    return _STATUS_BY_CODE.get(error.code) or http_status(error)


def problem_of(error: FarmError) -> dict[str, Any]:
    """The problem details of an error."""
    data = {key: value for key, value in error.data.items() if key not in ("type", "title", "status", "detail")}
    return {
        "type": TYPE_PREFIX + error.code,
        "title": TITLES.get(error.code, TITLES["internal"]),
        "status": status_of(error),
        "detail": error.problem,
        "remedy": error.remedy,
        "code": error.code,
    } | data


def problem_response(error: FarmError, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer for an error."""
    more = dict(headers or {})
    if isinstance(error, Unavailable):
        more.setdefault("Retry-After", str(RETRY_AFTER_S))
    if isinstance(error, Unauthorized):
        more.setdefault("WWW-Authenticate", 'Bearer realm="agentfarm"')
    body = orjson.dumps(problem_of(error), default=str)
    return Response(body, status_code=status_of(error), media_type=MEDIA_TYPE, headers=more)


def mistake_of(error: BaseException, where: str) -> FarmError:
    """Log an unexpected error under a new correlation id and give the error a caller may see."""
    correlation = uuid.uuid4().hex[:12]
    log.error("request.failed", where=where, correlation_id=correlation, exc_info=error)
    return FarmError(
        "The farm could not do this because of a mistake of its own.",
        remedy=f"Look for {correlation} in the controller's log, and report it.",
        correlation_id=correlation,
    )
