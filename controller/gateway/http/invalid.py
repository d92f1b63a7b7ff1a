"""Validation errors in words: which key, what is wrong with it, and which key was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from agentfarm.errors import InvalidRequest
from agentfarm.names import suggestion


def invalid_of(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """The InvalidRequest that names every wrong key of a body."""
    return invalid_request(error.errors(include_url=False, include_input=False), model.model_fields)


def invalid_request(errors: Sequence[Mapping[str, Any]], known: Iterable[str] = ()) -> InvalidRequest:
    """The InvalidRequest for errors in pydantic's form; `known` keys are used to find the nearest right one."""
    found = [_describe(error, list(known)) for error in errors]
    first, more = found[0], len(found) - 1
    detail = f"{first['where']}: {first['problem']}" + (f" (and {more} more)" if more else "") + "."
    remedy = next((item["remedy"] for item in found if item["remedy"]), "Correct it and send it again.")
    return InvalidRequest(detail, remedy=remedy, errors=[{k: v for k, v in item.items() if v} for item in found])


def _describe(error: Mapping[str, Any], known: list[str]) -> dict[str, str]:
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "the body"
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        remedy = suggestion(key, known) or f"Known keys: {', '.join(known)}."
        return {"where": where, "problem": "there is no such key", "remedy": remedy}
    if error["type"] == "missing":
        return {"where": where, "problem": "is missing", "remedy": f"Give {where}."}
    message = str(error["msg"])
    return {"where": where, "problem": message[0].lower() + message[1:], "remedy": ""}
