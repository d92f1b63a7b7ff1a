"""How a task's input becomes the arguments of a plain function, and what schema that makes.

The signature alone gives the rule, never the input. A parameter named `ctx` gets the Context. A function with one other
parameter that is named `input`, or whose type is a mapping, a model or Any, gets the whole input. In every other case
the input is an object whose keys are the parameters. Values of annotated parameters are checked: plain types here, all
others by pydantic where it is installed. A wrong input is a Reject, because another attempt cannot help.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentfarm.sdk.run import Context, Reject

WHOLE_NAMES: Final = frozenset({"input", "_input", "payload"})
_JSON_TYPES: Final[dict[Any, str]] = {
    str: "string", int: "integer", float: "number", bool: "boolean",
    dict: "object", list: "array", type(None): "null",
}  # fmt: skip
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class UnusableSignature(TypeError):
    """No input could ever become the arguments of this function."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that takes (part of) the input."""

    name: str
    annotation: Any
    """`inspect.Parameter.empty` where the author gave none."""
    is_required: bool
    check: Callable[[Any], Any]
    """The value as the function wants it; raises ValueError."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes."""

    function_name: str
    parameters: tuple[Parameter, ...]
    takes_whole: bool
    takes_context: str | None
    """The name of the parameter that gets the Context."""
    takes_any_key: bool
    """It has `**kwargs`."""
    returns: Any

    def bind(self, value: object, context: Callable[[], Context]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments. Raises Reject when the input does not fit."""
        named: dict[str, Any] = {} if self.takes_context is None else {self.takes_context: context()}
        if self.takes_whole:
            return (self._checked(self.parameters[0], value, "the input"),), named
        if value is None and not any(one.is_required for one in self.parameters):
            value = {}
        if not isinstance(value, Mapping):
            raise Reject(f"The input must be an object with {self._expected()}, not {_kind(value)}.")
        self._check_keys(value)
        for one in self.parameters:
            if one.name in value:
                named[one.name] = self._checked(one, value[one.name], f"{one.name!r}")
        if self.takes_any_key:
            names = {one.name for one in self.parameters}
            named |= {key: item for key, item in value.items() if key not in names}
        return (), named

    def input_schema(self) -> dict[str, Any]:
        """JSON schema of the input; empty when nothing is known."""
        if self.takes_whole:
            return schema_of(self.parameters[0].annotation)
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {one.name: schema_of(one.annotation) for one in self.parameters},
            "additionalProperties": self.takes_any_key,
        }
        if required := [one.name for one in self.parameters if one.is_required]:
            schema["required"] = required
        return schema

    def _check_keys(self, value: Mapping[Any, Any]) -> None:
        by_name = {one.name: one for one in self.parameters}
        missing = [name for name, one in by_name.items() if one.is_required and name not in value]
        unknown = [] if self.takes_any_key else [str(key) for key in value if key not in by_name]
        if not missing and not unknown:
            return
        problems = [f"it lacks {_names(missing)}"] if missing else []
        problems += [f"it has {_names(unknown)}, which {self.function_name}() does not take"] if unknown else []
        hint = ""
        if len(by_name) == 1 and missing and unknown:
            hint = " To get the input whole, its parameter would be named `input`."
        raise Reject(f"The input does not fit: {' and '.join(problems)}. It takes {self._expected()}.{hint}")

    def _checked(self, one: Parameter, value: object, what: str) -> Any:
        try:
            return one.check(value)
        except ValueError as error:
            raise Reject(f"{what[0].upper()}{what[1:]} does not fit: {error}") from None

    def _expected(self) -> str:
        if not self.parameters:
            return "no keys"
        return ", ".join(f"{one.name!r}{'' if one.is_required else ' (optional)'}" for one in self.parameters)


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's signature. Raises UnusableSignature."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise UnusableSignature(f"{name} has no signature that could be read: {error}") from error
    hints = _hints(function)
    context: str | None = None
    parameters: list[Parameter] = []
    any_key = False
    positional_only = []
    for one in signature.parameters.values():
        annotation = hints.get(one.name, one.annotation)
        if one.name == "ctx" or annotation is Context:
            context = one.name
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            any_key = True
        elif one.kind in _NAMED or one.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional_only += [one.name] if one.kind is inspect.Parameter.POSITIONAL_ONLY else []
            is_required = one.default is inspect.Parameter.empty
            parameters.append(Parameter(one.name, annotation, is_required, checker(annotation)))
    whole = len(parameters) == 1 and not any_key and (bool(positional_only) or _is_whole(parameters[0]))
    if positional_only and not whole:
        raise UnusableSignature(
            f"{name}() has positional-only parameters ({_names(positional_only)}); name them freely"
        )
    return Signature(name, tuple(parameters), whole, context, any_key, hints.get("return", inspect.Parameter.empty))


def checker(annotation: Any) -> Callable[[Any], Any]:
    """A function that turns a JSON value into one of this type, or raises ValueError with the reason."""
    if annotation is inspect.Parameter.empty or annotation is Any or annotation is object:
        return _as_is
    if annotation in _JSON_TYPES:
        return _plain_checker(annotation)
    if typing.is_typeddict(annotation):
        return _typed_dict_checker(annotation)
    if importlib.util.find_spec("pydantic") is None:
        return _as_is
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - only for annotations that need it

    adapter = TypeAdapter(annotation)

    def check(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors())
            raise ValueError("; ".join(problems)) from None

    return check


def schema_of(annotation: Any) -> dict[str, Any]:
    """JSON schema of a type; empty when nothing is known of it."""
    if annotation in _JSON_TYPES:
        return {"type": _JSON_TYPES[annotation]}
    if typing.is_typeddict(annotation):
        return _typed_dict_schema(annotation)
    if annotation is inspect.Parameter.empty or annotation is Any or importlib.util.find_spec("pydantic") is None:
        return {}
    from pydantic import TypeAdapter  # noqa: PLC0415 - only for annotations that need it
    from pydantic.errors import PydanticUserError  # noqa: PLC0415

    try:
        return TypeAdapter(annotation).json_schema()
    except PydanticUserError:
        return {}


def _typed_dict_schema(annotation: Any) -> dict[str, Any]:
    """Of a TypedDict, by its fields: pydantic refuses those of `typing` before Python 3.12."""
    schema: dict[str, Any] = {
        "title": annotation.__name__,
        "type": "object",
        "properties": {name: schema_of(_bare(kind)) for name, kind in typing.get_type_hints(annotation).items()},
    }
    if annotation.__required_keys__:
        schema["required"] = sorted(annotation.__required_keys__)
    return schema


def _typed_dict_checker(annotation: Any) -> Callable[[Any], Any]:
    fields = {name: checker(_bare(kind)) for name, kind in typing.get_type_hints(annotation).items()}

    def check(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"must be object, not {_kind(value)}")
        if missing := sorted(annotation.__required_keys__ - value.keys()):
            raise ValueError(f"it lacks {_names(missing)}")
        return {key: fields[key](item) if key in fields else item for key, item in value.items()}

    return check


def _bare(kind: Any) -> Any:
    """The type inside Required, NotRequired or ReadOnly."""
    is_mark = getattr(typing.get_origin(kind), "__name__", str(typing.get_origin(kind))).rpartition(".")[2] in (
        "Required",
        "NotRequired",
        "ReadOnly",
    )
    return typing.get_args(kind)[0] if is_mark else kind


def _as_is(value: Any) -> Any:
    return value


def _plain_checker(kind: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind and not (kind is dict and isinstance(value, Mapping)):
            raise ValueError(f"must be {_JSON_TYPES[kind]}, not {_kind(value)}")
        return value

    return check


def _is_whole(one: Parameter) -> bool:
    if one.name in WHOLE_NAMES:
        return True
    annotation = one.annotation
    origin = typing.get_origin(annotation) or annotation
    if annotation is Any or not isinstance(origin, type):
        return annotation is Any
    is_model = hasattr(origin, "model_fields") or dataclasses.is_dataclass(origin) or typing.is_typeddict(origin)
    return is_model or issubclass(origin, Mapping)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(inspect.unwrap(target))
    except Exception:  # annotations are the author's, and may name what exists for type checkers only
        return {}


def _names(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _kind(value: object) -> str:
    name = _JSON_TYPES.get(type(value), type(value).__name__)
    return name if name == "null" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
