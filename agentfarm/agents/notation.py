"""The spec as people write it: YAML with units. The reader remembers the line of every key.

Owns the names of the YAML keys and the sentence that says what each may hold. It collects every problem before it
speaks, so that one look at the message is enough. `agentfarm.agents.spec` owns what the values mean and their range.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import ValidationError

from agentfarm import limits
from agentfarm.agents import spec, units
from agentfarm.errors import InvalidRequest
from agentfarm.names import NAME_RULE, suggestion

SPEC_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Key:
    """One YAML key: where its value goes in the canonical form, and what it may hold."""

    target: str
    rule: str
    read: Callable[[object], object]


def _as_is(value: object) -> object:
    return value


def _or_null(read: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else read(value)


def _texts(value: object) -> object:
    """Variables and labels. A number becomes text. `yes`, `no` and null are refused: their author may mean the text."""
    if not isinstance(value, dict):
        raise ValueError("must map names to texts")
    for name, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise ValueError(f"must map names to texts; put the value of {name} in quotes")
    return {str(name): str(item) for name, item in value.items()}


def _words(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts, like [one, two]")
    return value


def _whole(lowest: int, highest: int) -> str:
    return f"must be a whole number from {lowest} to {highest}"


_DURATION: Final = f"{units.DURATION_RULE}, at most 30d"
_LIMIT: Final = f"{units.DURATION_RULE}, more than 0 and at most 30d"
_NULLABLE: Final = f"{_LIMIT}, or null for no limit"
_WORDS: Final = "must be a list of texts, none empty"

TOP: Final[dict[str, Key]] = {
    "name": Key("name", f"must be a name. {NAME_RULE}", _as_is),
    "description": Key("description", f"must be a text of at most {spec.DESCRIPTION_MAX} characters", _as_is),
    "entry": Key("entry", spec.ENTRY_RULE, _as_is),
    "replicas": Key("replicas", _whole(0, limits.REPLICAS_MAX), _as_is),
    "concurrency": Key("concurrency", _whole(1, limits.CONCURRENCY_MAX), _as_is),
    "priority": Key("priority", _whole(limits.PRIORITY_MIN, limits.PRIORITY_MAX), _as_is),
    "environment": Key("environment", spec.ENVIRONMENT_RULE, _texts),
    "exclusive": Key("exclusive", "must be true or false", _as_is),
}
SECTIONS: Final[dict[str, dict[str, Key]]] = {
    "resources": {
        "cpu": Key("cpu_millicores", f"{units.CPU_RULE}, at least 1m", units.cpu_millicores),
        "memory": Key("memory_mib", f"{units.MEMORY_RULE}, at least {spec.MEMORY_MIB_MIN}Mi", units.memory_mib),
        "gpus": Key("gpus", _whole(0, 64), _as_is),
    },
    "retries": {
        "max_attempts": Key("max_attempts", _whole(1, limits.ATTEMPTS_MAX), _as_is),
        "backoff": Key("backoff_s", _DURATION, units.duration_s),
        "backoff_max": Key("backoff_max_s", _DURATION, units.duration_s),
    },
    "timeouts": {
        "queue": Key("queue_s", _NULLABLE, _or_null(units.duration_s)),
        "run": Key("run_s", _NULLABLE, _or_null(units.duration_s)),
        "healthy": Key("healthy_s", _LIMIT, units.duration_s),
        "shutdown": Key("shutdown_s", _DURATION, units.duration_s),
    },
    "placement": {
        "strategy": Key("strategy", "must be spread or pack", _as_is),
        "labels": Key("labels", "must map names to texts", _texts),
        "capabilities": Key("capabilities", _WORDS, _words),
        "products": Key("products", _WORDS, _words),
    },
}


def read_spec(text: str, source: str = "agent.yaml", *, name: str | None = None) -> spec.AgentSpec:
    """The spec in this YAML text; `name` is used when the text has no key `name`. Raises InvalidRequest."""
    reader = _Reader(source)
    data = reader.document(text)
    if "name" not in data and name is None and not reader.problems:
        reader.problems.append(f"{source}: the key 'name' is missing")
    data.setdefault("name", name or "unnamed")
    result = _validated(data, reader)
    if reader.problems or result is None:
        raise InvalidRequest(
            _message(source, reader.problems),
            remedy="Every problem is listed; docs/writing-an-agent.md shows all keys.",
            problems=reader.problems,
        )
    return result


def _validated(data: dict[str, Any], reader: _Reader) -> spec.AgentSpec | None:
    try:
        return spec.AgentSpec.model_validate(data)
    except ValidationError as error:
        for item in error.errors():
            message = str(item["msg"])
            own = message.removeprefix("Value error, ")
            reader.refused_value(tuple(str(part) for part in item["loc"]), own)
        return None


def _message(source: str, problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0] if problems[0][-1] in ".?" else f"{problems[0]}."
    problems.sort(key=_line)
    return f"{source} has {len(problems)} problems:\n" + "\n".join(f"  {problem}" for problem in problems)


def _line(problem: str) -> int:
    """The line a problem names; those about the whole file come last."""
    match = re.match(r"[^\n]*?:(\d+): ", problem)
    return int(match[1]) if match else sys.maxsize


class _Reader:
    """Turns YAML nodes into canonical data; remembers the place of every key and each problem met."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []
        self._places: dict[tuple[str, ...], tuple[str, Key, yaml.Node]] = {}
        """Canonical path -> how it was written."""
        self._refused: set[tuple[str, ...]] = set()

    def document(self, text: str) -> dict[str, Any]:
        """All that could be read. An empty text is an empty spec."""
        if len(text) > SPEC_BYTES_MAX:
            self.problems.append(f"{self.source}: longer than {SPEC_BYTES_MAX} characters, the most a spec may have")
            return {}
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            self.problems.append(self._yaml_problem(error))
            return {}
        if root is None or _is_null(root):
            return {}
        if not isinstance(root, yaml.MappingNode):
            self._say(root, "a spec is a mapping of keys to values, like `replicas: 2`")
            return {}
        return self._top(root)

    def refused_value(self, path: tuple[str, ...], message: str) -> None:
        """Say what is allowed at a canonical path, under the name of the written key that holds the path."""
        if path[:1] in self._refused or path[:2] in self._refused:
            return
        for place in (path, path[:2], path[:1]):
            if place in self._places:
                written, key, node = self._places[place]
                self._refused.add(place)
                why = message if message.startswith("must ") else f"{key.rule}, not {_shown(node)}"
                self._say(node, f"{written} {why}")
                return
        self.problems.append(f"{self.source}: {'.'.join(path)}: {message}")

    def _top(self, root: yaml.MappingNode) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, key_node, node in self._pairs(root, ""):
            if name in TOP:
                self._take(data, "", name, TOP[name], node)
            elif name in SECTIONS:
                data[name] = self._section(name, node)
            else:
                self._unknown(name, key_node, "")
        return data

    def _section(self, section: str, node: yaml.Node) -> dict[str, Any]:
        keys = SECTIONS[section]
        data: dict[str, Any] = {}
        if _is_null(node):
            return data
        if not isinstance(node, yaml.MappingNode):
            self._say(node, f"{section} must hold the keys {', '.join(keys)}")
            return data
        for name, key_node, inner in self._pairs(node, f"{section}."):
            if name in keys:
                self._take(data, section, name, keys[name], inner)
            else:
                self._unknown(name, key_node, section)
        return data

    def _take(self, data: dict[str, Any], section: str, written: str, key: Key, node: yaml.Node) -> None:
        path = (section, key.target) if section else (key.target,)
        self._places[path] = (f"{section}.{written}" if section else written, key, node)
        try:
            value = key.read(_plain(node))
        except ValueError as error:
            is_in_rule = str(error) in key.rule
            self.refused_value(path, "" if is_in_rule else str(error))
            return
        data[key.target] = value

    def _pairs(self, node: yaml.MappingNode, prefix: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        seen: dict[str, yaml.Node] = {}
        pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._say(key_node, "a key must be one word")
                continue
            name = str(key_node.value)
            if name in seen:
                first = seen[name].start_mark.line + 1
                self._say(key_node, f"{prefix}{name} is written twice, first in line {first}")
                continue
            seen[name] = key_node
            pairs.append((name, key_node, value_node))
        return pairs

    def _unknown(self, name: str, node: yaml.Node, section: str) -> None:
        here = SECTIONS[section] if section else {**TOP, **SECTIONS}
        written = f"{section}.{name}" if section else name
        self._say(node, f"there is no key {written!r}. {_meant(name, section, here)}")

    def _say(self, node: yaml.Node, problem: str) -> None:
        self.problems.append(f"{self.source}:{node.start_mark.line + 1}: {problem}")

    def _yaml_problem(self, error: yaml.YAMLError) -> str:
        mark = getattr(error, "problem_mark", None)
        place = f"{self.source}:{mark.line + 1}" if mark is not None else self.source
        return f"{place}: not YAML: {getattr(error, 'problem', None) or error}"


def _meant(name: str, section: str, here: dict[str, Any]) -> str:
    """The nearest right key: of this place first, then of all others."""
    if hint := suggestion(name, here):
        return hint
    elsewhere = {key: f"{other}.{key}" for other, keys in SECTIONS.items() if other != section for key in keys}
    elsewhere |= {key: key for key in TOP} if section else {}
    if name in elsewhere:
        return f"Did you mean {elsewhere[name]!r}?"
    return f"There are: {', '.join(sorted(here))}."


def _plain(node: yaml.Node) -> object:
    """The node's value: scalars, and lists or mappings of scalars. Anything deeper raises ValueError."""
    if isinstance(node, yaml.MappingNode):
        return {str(_scalar(key)): _scalar(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(item) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> object:
    """A scalar as YAML means it, except that a date stays text."""
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    value: object = yaml.SafeLoader("").construct_object(node)
    return value


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        text = str(node.value)
        return repr(text if len(text) <= 60 else text[:57] + "…")
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
