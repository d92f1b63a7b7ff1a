"""Reading a process's settings: a YAML file, then environment variables, into one frozen dataclass.

The dataclass is the schema: its field names are the keys, its types what is allowed, its defaults the defaults. Every
problem is reported at once, each naming the key, where it came from, and the nearest right key.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agentfarm.errors import InvalidRequest
from agentfarm.names import nearest

T = TypeVar("T")


def read_settings(kind: type[T], path: Path | None, env_prefix: str, env: Mapping[str, str] | None = None) -> T:
    """Settings of `kind` from `path` (None: defaults), overridden by variables such as AGENTFARM_DATA_DIR.

    A field of a nested dataclass is a mapping in YAML, and PREFIX_OUTER_INNER in the environment.
    Raises InvalidRequest naming every problem.
    """
    source = str(path) if path is not None else "settings"
    raw = _read_yaml(path) if path is not None else {}
    problems: list[str] = []
    values = _collect(kind, raw, source, problems)
    _overlay(kind, values, env_prefix, os.environ if env is None else env, problems)
    if problems:
        raise InvalidRequest(f"The settings are wrong: {' '.join(problems)}", remedy="Correct them and start again.")
    try:
        made: T = _make(kind, values)
    except ValueError as problem:
        raise InvalidRequest(f"The settings are wrong: {source}: {problem}.", remedy="Correct them.") from problem
    return made


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InvalidRequest(f"The settings file {path} cannot be read: {problem.strerror}.") from problem
    except yaml.YAMLError as problem:
        raise InvalidRequest(f"The settings file {path} is not YAML: {problem}") from problem
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidRequest(f"The settings file {path} must hold keys and values.")
    return raw


def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _collect(kind: Any, raw: Mapping[str, Any], source: str, problems: list[str]) -> dict[str, Any]:
    fields = _fields(kind)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            close = nearest(str(key), fields)
            problems.append(f"{source}: there is no key {key!r}" + (f"; did you mean {close!r}?" if close else "."))
            continue
        nested = _dataclass_of(fields[key])
        if nested is not None and isinstance(value, Mapping):
            values[key] = _collect(nested, value, f"{source}: {key}", problems)
        else:
            values[key] = _convert(value, fields[key], f"{source}: {key}", problems)
    return values


def _overlay(kind: Any, values: dict[str, Any], prefix: str, env: Mapping[str, str], problems: list[str]) -> None:
    for name, hint in _fields(kind).items():
        variable = f"{prefix}_{name}".upper()
        nested = _dataclass_of(hint)
        if nested is not None:
            inner = values.get(name)
            inner = inner if isinstance(inner, dict) else {}
            _overlay(nested, inner, variable, env, problems)
            if inner:
                values[name] = inner
        elif variable in env:
            values[name] = _convert(yaml.safe_load(env[variable]), hint, variable, problems)


def _make(kind: Any, values: dict[str, Any]) -> Any:
    made = {}
    for name, hint in _fields(kind).items():
        if name in values:
            nested = _dataclass_of(hint)
            value = values[name]
            made[name] = _make(nested, value) if nested is not None and isinstance(value, dict) else value
    return kind(**made)


def _convert(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    """The value as the hinted type, or as it is with a problem noted."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _convert(value, options[0], where, problems)
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin in (tuple, frozenset, list) and isinstance(value, list):
        return origin(value)
    expected = origin or hint
    if hint is Any or (isinstance(value, expected) and (expected is not int or not isinstance(value, bool))):
        return value
    problems.append(f"{where} is {value!r}, which is not {_word(expected)}.")
    return value


def _dataclass_of(hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _word(kind: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path",
             dict: "keys and values", tuple: "a list", frozenset: "a list", list: "a list"}  # fmt: skip
    return words.get(kind, getattr(kind, "__name__", str(kind)))
