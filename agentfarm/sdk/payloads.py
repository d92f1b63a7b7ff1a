"""Payloads of checkpoints: values to bytes and back, and which types may be in them.

The bytes come from the farm's store, where another attempt wrote them, maybe a hostile one. LangGraph's serializer
calls whatever the bytes name (`os.mkdir` too), or, in its strict mode, gives back plain data in place of a value. So
the names are read first, without making anything of them, and one outside the list refuses the whole payload. The same
look is taken at what is written: an agent learns at once which value would not come back.

The list: values of the standard library, LangChain's messages and LangGraph's own values; the types of the graph's
schema, which LangGraph names (`with_types`); data classes, models, enums and named tuples of the agent's own modules.

Imports LangGraph: loaded only for agents that use it.
"""

from __future__ import annotations

import dataclasses
import sys
import zlib
from collections.abc import Collection
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NoReturn

import ormsgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentfarm.errors import InvalidRequest
from agentfarm.sdk.loader import own_module

CHECKPOINT_BYTES_MAX: Final = 64 * 2**20
"""Of one value, unpacked. A controller takes 16 MiB, packed."""
COMPRESS_FROM_BYTES: Final = 4096
_PLAIN, _DEFLATED = b"\0", b"\1"
_OPTIONS: Final = ormsgpack.OPT_NON_STR_KEYS
TypeName = tuple[str, ...]
"""Module and name."""

_MESSAGES: Final = {
    "base": "BaseMessage", "human": "HumanMessage", "ai": "AIMessage", "system": "SystemMessage",
    "chat": "ChatMessage", "tool": "ToolMessage", "function": "FunctionMessage",
}  # fmt: skip
_VALUES: Final = {
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "uuid": ("UUID",),
    "decimal": ("Decimal",),
    "builtins": ("set", "frozenset"),
    "collections": ("deque",),
    "ipaddress": ("IPv4Address", "IPv4Interface", "IPv4Network", "IPv6Address", "IPv6Interface", "IPv6Network"),
    "pathlib": ("Path", "PosixPath", "WindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath"),
    "zoneinfo": ("ZoneInfo",),
    "re": ("compile",),
    "langchain_core.messages.modifier": ("RemoveMessage",),
    "langchain_core.documents.base": ("Document",),
    "langchain_core.agents": ("AgentAction", "AgentActionMessageLog", "AgentFinish"),
    "langgraph.types": ("Send", "TimeoutPolicy", "Interrupt", "Command", "StateSnapshot", "PregelTask", "Overwrite"),
    "langgraph.store.base": ("Item", "GetOp"),
    **{f"langchain_core.messages.{file}": (name, f"{name}Chunk") for file, name in _MESSAGES.items()},
}
SAFE_TYPES: Final = frozenset((module, name) for module, names in _VALUES.items() for name in names)
_SAFE_METHOD: Final = ("datetime", "datetime", "fromisoformat")

# codes of LangGraph's extensions of msgpack; what follows is a tuple that begins with module and name, if not said else
_CONSTRUCTORS: Final = frozenset({0, 1, 2, 4, 5})
_METHOD: Final = 3
_NAMELESS: Final = frozenset({6, 7})
"""Arrays, and values of channels that are stored as differences."""


class CheckpointRefused(InvalidRequest):
    """A value that may not be in a checkpoint, or bytes that are none."""

    code = "checkpoint_refused"


class Payloads:
    """Packs and unpacks values. types: those allowed besides SAFE_TYPES and the agent's own."""

    def __init__(self, types: Collection[TypeName] = ()) -> None:
        self._types = frozenset(types)

    def with_types(self, types: Collection[TypeName]) -> Payloads:
        """These types are allowed too."""
        return self if self._types.issuperset(types) else Payloads(self._types.union(types))

    def pack(self, value: object) -> bytes:
        """The value as bytes. Raises CheckpointRefused for what would not come back as it is."""
        kind, data = JsonPlusSerializer().dumps_typed(value)
        if len(data) > CHECKPOINT_BYTES_MAX:
            raise CheckpointRefused(
                f"A checkpoint would have {len(data):,} bytes; {CHECKPOINT_BYTES_MAX:,} are allowed.",
                remedy="Keep large data elsewhere, and its place in the state.", limit="CHECKPOINT_BYTES_MAX",
            )  # fmt: skip
        if kind == "msgpack":
            for name in self._names(data):
                if not _exists(name):
                    _refuse(name, "is not at the top level of its module, so it could not be read again")
        head = kind.encode() + b"\0"
        if len(data) < COMPRESS_FROM_BYTES:
            return _PLAIN + head + data
        return _DEFLATED + head + zlib.compress(data, 1)

    def unpack(self, payload: bytes) -> Any:
        """The reverse. Calls nothing that is not allowed. Raises CheckpointRefused."""
        head, _, data = payload[1:].partition(b"\0")
        kind = head.decode(errors="replace")
        if payload[:1] == _DEFLATED:
            data = _inflated(data)
        if kind == "msgpack":
            return _reader(frozenset(self._names(data))).loads_typed((kind, data))
        if kind not in ("null", "bytes", "bytearray"):
            raise CheckpointRefused(f"A checkpoint is of the unknown kind {kind[:40]!r}.")
        return JsonPlusSerializer().loads_typed((kind, data))

    def _names(self, data: bytes) -> set[TypeName]:
        """The types that the bytes name, beyond SAFE_TYPES; all of them are allowed."""
        inspection = _Inspection()
        inspection.read(data)
        names = inspection.names - SAFE_TYPES
        for name in names:
            if name not in self._types and not _is_own_value(name):
                _refuse(name, "is not among the types that may be in a checkpoint")
        return names


def schema_types(graph: Any) -> Collection[TypeName]:
    """The types that a graph names in its schemas, as LangGraph finds them; of subgraphs it asks `with_types` itself.

    LangGraph notes them on a graph when it is compiled, and its copies lose the note.
    """
    try:
        from langgraph._internal._serde import build_serde_allowlist  # noqa: PLC0415 - older releases have none
    except ImportError:
        return ()
    builder = getattr(graph, "builder", None)
    schemas = [getattr(builder, f"{name}_schema", None) for name in ("state", "input", "output", "context")]
    schemas += [getattr(node, "input_schema", None) for node in getattr(builder, "nodes", {}).values()]
    return build_serde_allowlist(schemas=[schema for schema in schemas if schema is not None], channels=graph.channels)


class _Inspection:
    """Reads msgpack without making anything of it but plain values, and gathers the names."""

    def __init__(self) -> None:
        self.names: set[TypeName] = set()
        self._problem: CheckpointRefused | None = None

    def read(self, data: bytes) -> None:
        """Raises CheckpointRefused for bytes that are not as our serializer writes them."""
        try:
            ormsgpack.unpackb(data, ext_hook=self._extension, option=_OPTIONS)
        except (ValueError, RecursionError) as problem:
            raise self._problem or CheckpointRefused(f"A checkpoint cannot be read: {problem}.") from problem
        if self._problem is not None:
            raise self._problem

    def _extension(self, code: int, data: bytes) -> None:
        inner = ormsgpack.unpackb(data, ext_hook=self._extension, option=_OPTIONS)
        if code in _NAMELESS:
            return
        words = tuple(inner) if isinstance(inner, list) else ()
        is_named = len(words) > 2 and isinstance(words[0], str) and isinstance(words[1], str)
        if code in _CONSTRUCTORS and is_named:
            self.names.add(words[:2])
        elif code != _METHOD or not is_named or (*words[:2], *words[3:4]) != _SAFE_METHOD:
            shown = ".".join(str(word)[:100] for word in (*words[:2], *words[3:4]))
            self._problem = CheckpointRefused(f"A checkpoint asks for a call of {shown or 'nothing known'}.")


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(data, CHECKPOINT_BYTES_MAX)
    except zlib.error as problem:
        raise CheckpointRefused(f"A checkpoint cannot be read: {problem}.") from problem
    if not inflating.eof:
        raise CheckpointRefused(
            f"A checkpoint has more than {CHECKPOINT_BYTES_MAX:,} bytes, or ends early.", limit="CHECKPOINT_BYTES_MAX"
        )
    return plain


@lru_cache(maxsize=64)
def _reader(names: frozenset[TypeName]) -> JsonPlusSerializer:
    """LangGraph's own, which makes values of these types; they were looked at before."""
    try:
        return JsonPlusSerializer(allowed_msgpack_modules=names or None)
    except TypeError:  # before langgraph-checkpoint 4 it has no list, and makes values of every type
        return JsonPlusSerializer()


def _is_own_value(name: TypeName) -> bool:
    kind = getattr(own_module(name[0]), name[1], None)
    if not isinstance(kind, type):
        return False
    return (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, Enum)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or any(base.__name__ == "BaseModel" and base.__module__.startswith("pydantic") for base in kind.__mro__)
    )


def _exists(name: TypeName) -> bool:
    return isinstance(getattr(sys.modules.get(name[0]), name[1], None), type)


def _refuse(name: TypeName, why: str) -> NoReturn:
    shown = ".".join(part[:100] for part in name)
    raise CheckpointRefused(
        f"The type {shown} {why}.",
        remedy="Store plain values, or a data class or model that stands at the top level of the agent's own module.",
        type=shown,
    )
