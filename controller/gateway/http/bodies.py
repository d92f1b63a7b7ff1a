"""Reading a request's body into a model, and describing that model in OpenAPI.

FastAPI's own body parameters are not used: they would turn a refused body (too large, NUL, too deep) into an error of
their own wording.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from controller.gateway.http.invalid import invalid_of
from controller.gateway.http.json_input import read_json

B = TypeVar("B", bound=BaseModel)

DESCRIBED: Final[list[type[BaseModel]]] = []  # every model that describes a body; app.py puts them into OpenAPI


async def read_model(request: Request, model: type[B], *, is_optional: bool = False) -> B:
    """The body as `model`. With is_optional an empty body is an empty object. Raises InvalidRequest."""
    text = await request.body()
    value = {} if is_optional and not text.strip() else read_json(text)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_of(error, model) from None


def body_of(
    model: type[BaseModel], *, media_type: str = "application/json", is_required: bool = True
) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is that model."""
    if model not in DESCRIBED:
        DESCRIBED.append(model)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": is_required, "content": {media_type: {"schema": schema}}}}
