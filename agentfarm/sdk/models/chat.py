"""One request to a chat model and the pieces of its answer, in the terms of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked. Messages and tools have OpenAI's form."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    """`temperature`, `max_tokens`, `stop`, …"""


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A tool call, or a part of one. Parts with one index belong together, and their arguments are joined."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """A piece of an answer; a whole answer is one piece."""

    text: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None


class Engine(Protocol):
    """What answers requests. Each raises InvalidRequest, Forbidden or Unavailable."""

    def complete(self, request: ChatRequest) -> ChatPiece: ...
    async def acomplete(self, request: ChatRequest) -> ChatPiece: ...
    def stream(self, request: ChatRequest) -> Iterator[ChatPiece]: ...
    def astream(self, request: ChatRequest) -> AsyncIterator[ChatPiece]: ...


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)
