"""Bodies: reading one into a model, describing that model in OpenAPI, and saying which key of a body is wrong.

FastAPI's own body parameters are not used: they would turn a refused body (too large, NUL, too deep) into an error of
their own wording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from agentfarm.errors import InvalidRequest
from agentfarm.names import suggestion
from controller.gateway.http.json_input import read_json
from controller.gateway.http.limits import ERRORS_MAX, PATH_CHARS_MAX

B = TypeVar("B", bound=BaseModel)

DESCRIBED: Final[list[type[BaseModel]]] = []
"""Every model that describes a body; app.py puts them into OpenAPI."""


def read_model(text: bytes, model: type[B], *, is_optional: bool = False) -> B:
    """A body as that model. is_optional: an empty one is an empty object. Raises InvalidRequest."""
    value = {} if is_optional and not text.strip() else read_json(text)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_of(error, model) from None


def raw_body(
    model: type[BaseModel], *, media_type: str = "application/json", is_required: bool = True
) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body itself, in the form of that model."""
    if model not in DESCRIBED:
        DESCRIBED.append(model)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": is_required, "content": {media_type: {"schema": schema}}}}


def invalid_of(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """The InvalidRequest that names every wrong key of a body."""
    return invalid_request(error.errors(include_url=False, include_input=False), model.model_fields)


def invalid_request(errors: Sequence[Mapping[str, Any]], keys: Iterable[str] = ()) -> InvalidRequest:
    """The InvalidRequest for errors in pydantic's form. keys: the right ones, to find the nearest of them."""
    choices = list(keys)
    rows = [_describe(error, choices) for error in errors[:ERRORS_MAX]]
    first, more = rows[0], len(errors) - 1
    detail = f"{first['where']}: {first['problem']}" + (f" (and {more} more)" if more else "") + "."
    remedy = next((row["remedy"] for row in rows if row["remedy"]), "Correct it and send it again.")
    return InvalidRequest(detail, remedy=remedy, errors=[{k: v for k, v in row.items() if v} for row in rows])


def _describe(error: Mapping[str, Any], keys: list[str]) -> dict[str, str]:
    where = ".".join(str(part) for part in error["loc"] if part != "body")[:PATH_CHARS_MAX] or "the body"
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        remedy = suggestion(key, keys) or f"Known keys: {', '.join(keys)}."
        return {"where": where, "problem": "there is no such key", "remedy": remedy}
    if error["type"] == "missing":
        return {"where": where, "problem": "is missing", "remedy": f"Give {where}."}
    message = str(error["msg"])
    return {"where": where, "problem": message[0].lower() + message[1:], "remedy": ""}
