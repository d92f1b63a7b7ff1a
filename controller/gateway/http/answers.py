"""Answers as JSON, written by orjson without a second validation: views are already checked where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.responses import Response

_OPTIONS: Final = orjson.OPT_UTC_Z


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` may hold models, aware datetimes and orjson.Fragment (JSON that is already text)."""
    return Response(dump(value), status_code=status, media_type="application/json", headers=headers)


def dump(value: Any) -> bytes:
    """The value as JSON; times in UTC end in Z."""
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def when(wall: float | None) -> datetime | None:
    """Unix seconds as an aware UTC time; None stays None."""
    return None if wall is None or wall <= 0 else datetime.fromtimestamp(wall, UTC)


def _plain(value: Any) -> Any:
    from pydantic import BaseModel  # noqa: PLC0415 - a plain submit's answer holds none, and does not wait for it

    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(f"no JSON for {type(value).__name__}")
