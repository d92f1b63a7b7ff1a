"""What an agent asks of the farm: `AgentSpec`, validated once, where it enters.

Owns meaning, defaults and limits of every setting. People write YAML with units (`agentfarm.agents.notation`); the farm
stores and sends `canonical_json()`: one text for one meaning, with plain units in the names of its keys. Nodes read
that text with `agentfarm.agents.view`, which needs nothing but the standard library.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentfarm import limits
from agentfarm.errors import InvalidRequest
from agentfarm.names import NAME_RULE, is_name, suggestion

MEMORY_MIB_MIN: Final = 16
ENVIRONMENT_MAX: Final = 256
ENVIRONMENT_VALUE_MAX: Final = 32_768
DESCRIPTION_MAX: Final = 1_000
RESERVED_VARIABLES: Final = frozenset({"AGENTFARM_AGENT", "AGENTFARM_NODE", "AGENTFARM_REPLICA", "AGENTFARM_TSDB"})
"""Set by the node for each replica; a spec must not claim them."""

ENTRY_RULE: Final = "must be a Python file of the agent, with an attribute if wanted (agent.py, src/app.py:graph)"
ENVIRONMENT_RULE: Final = (
    f"must map names of variables to texts: at most {ENVIRONMENT_MAX}, each up to {ENVIRONMENT_VALUE_MAX} characters"
)

_ENTRY: Final = re.compile(r"(?:(?!\.\.?/)[^/:\\\0]+/)*[^/:\\\0]+\.py(?::[A-Za-z_]\w*)?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(NAME_RULE)
    return value


def _entry(value: str) -> str:
    plain = value.removeprefix("./")
    if not _ENTRY.fullmatch(plain):
        raise ValueError(ENTRY_RULE)
    return plain


def _environment(value: dict[str, str]) -> dict[str, str]:
    if claimed := sorted(RESERVED_VARIABLES & value.keys()):
        raise ValueError(f"must not hold {', '.join(claimed)}: the node sets it for each replica")
    if wrong := sorted(name for name, text in value.items() if not (_VARIABLE.fullmatch(name) and _is_text(text))):
        raise ValueError(f"{ENVIRONMENT_RULE}; look at {', '.join(wrong)}")
    if len(value) > ENVIRONMENT_MAX:
        raise ValueError(ENVIRONMENT_RULE)
    return dict(sorted(value.items()))


def _is_text(value: str) -> bool:
    """Whether a process can have it in its environment; lone surrogates cannot be written as UTF-8."""
    if len(value) > ENVIRONMENT_VALUE_MAX or "\0" in value:
        return False
    return value.isascii() or not any(0xD800 <= ord(character) <= 0xDFFF for character in value)


def _labels(value: dict[str, str]) -> dict[str, str]:
    if not all(map(_is_text, (*value, *value.values()))):
        raise ValueError("must map names to texts")
    return dict(sorted(value.items()))


def _unique(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(text and _is_text(text) for text in value):
        raise ValueError("must be a list of texts, none empty")
    return tuple(sorted(set(value)))


Duration = Annotated[float, Field(ge=0, le=limits.DURATION_MAX_S, allow_inf_nan=False)]
PositiveDuration = Annotated[float, Field(gt=0, le=limits.DURATION_MAX_S, allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_unique)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(_Part):
    """What one replica needs."""

    cpu_millicores: Annotated[int, Field(ge=1, le=1_000_000)] = limits.CPU_MILLICORES
    memory_mib: Annotated[int, Field(ge=MEMORY_MIB_MIN, le=16 * 2**20)] = limits.MEMORY_MIB
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


class Retries(_Part):
    """How often a task is tried, and how long to wait after a failure: growing from backoff to its maximum."""

    max_attempts: Annotated[int, Field(ge=1, le=limits.ATTEMPTS_MAX)] = limits.ATTEMPTS
    backoff_s: Duration = limits.BACKOFF_S
    backoff_max_s: Duration = limits.BACKOFF_MAX_S

    @model_validator(mode="before")
    @classmethod
    def _longest_wait_is_at_least_the_first(cls, data: Any) -> Any:
        first = data.get("backoff_s") if isinstance(data, dict) else None
        if isinstance(first, int | float) and "backoff_max_s" not in data:
            return {**data, "backoff_max_s": max(limits.BACKOFF_MAX_S, float(first))}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError("backoff_max must not be shorter than backoff")
        return self


class Timeouts(_Part):
    """Limits in seconds; None is no limit."""

    queue_s: PositiveDuration | None = None
    run_s: PositiveDuration | None = limits.RUN_TIMEOUT_S
    healthy_s: PositiveDuration = limits.HEALTHY_TIMEOUT_S
    """From the start of a replica until it must be ready."""
    shutdown_s: Duration = limits.SHUTDOWN_TIMEOUT_S
    """How long a replica may take to end its attempts when it must go."""


class Placement(_Part):
    """Which nodes may, and should, seat its replicas."""

    strategy: Literal["spread", "pack"] = "spread"
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = {}
    capabilities: Words = ()
    products: Words = ()
    """Market products it reads: a preference for nodes that hold them."""


class AgentSpec(_Part):
    """An agent's settings, whole and valid. Equal meaning gives an equal `canonical_json()`."""

    name: Annotated[str, AfterValidator(_name)]
    description: Annotated[str, Field(max_length=DESCRIPTION_MAX)] = ""
    entry: Annotated[str, AfterValidator(_entry)] | None = None
    replicas: Annotated[int, Field(ge=0, le=limits.REPLICAS_MAX)] = limits.REPLICAS
    concurrency: Annotated[int, Field(ge=1, le=limits.CONCURRENCY_MAX)] = limits.CONCURRENCY
    priority: Annotated[int, Field(ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)] = limits.PRIORITY
    resources: Resources = Resources()
    retries: Retries = Retries()
    timeouts: Timeouts = Timeouts()
    placement: Placement = Placement()
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = {}
    exclusive: bool = False

    def canonical_json(self) -> str:
        """The text the farm stores and sends to nodes (`spec_json`)."""
        return self.model_dump_json()

    @classmethod
    def from_canonical(cls, text: str | bytes) -> Self:
        """The reverse of `canonical_json()`. Raises InvalidRequest with every problem found."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = [_canonical_problem(cls, dict(item)) for item in error.errors()]
            raise InvalidRequest(
                f"The agent spec is not valid: {'; '.join(problems)}.",
                remedy="Correct these keys; all other keys were understood.",
                problems=problems,
            ) from error


def _canonical_problem(model: type[BaseModel], item: dict[str, Any]) -> str:
    """One pydantic error as `key: what is wrong`, with the nearest key for one that does not exist."""
    path = [str(part) for part in item["loc"]]
    where = ".".join(path) or "the spec"
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg'].removeprefix('Value error, ')}"
    for part in path[:-1]:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type)
        model = inner
    hint = suggestion(path[-1], model.model_fields)
    return f"{where}: there is no such key{'. ' + hint if hint else ''}"
