"""The farm's chat models where LangChain is not installed: the same four verbs over plain messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentfarm.errors import InvalidRequest
from agentfarm.sdk.models.chat import ChatPiece, ChatRequest, Engine

Prompt: TypeAlias = str | Sequence[Mapping[str, Any] | tuple[str, str]]
"""A text, or messages as `{"role": …, "content": …}` or `(role, content)`."""

_ROLES = {"human": "user", "ai": "assistant"}


@dataclass(frozen=True, slots=True)
class PlainMessage:
    """An answer, or a piece of one."""

    content: str

    def __str__(self) -> str:
        return self.content


class PlainChatModel:
    """Text in, text out."""

    def __init__(self, engine: Engine, model: str, settings: dict[str, Any]) -> None:
        self._engine = engine
        self._model = model
        self._settings = settings

    def invoke(self, prompt: Prompt) -> PlainMessage:
        """The whole answer."""
        return _message(self._engine.complete(self._request(prompt)))

    async def ainvoke(self, prompt: Prompt) -> PlainMessage:
        """As `invoke`."""
        return _message(await self._engine.acomplete(self._request(prompt)))

    def stream(self, prompt: Prompt) -> Iterator[PlainMessage]:
        """The answer as it is written."""
        return (_message(piece) for piece in self._engine.stream(self._request(prompt)) if piece.text)

    async def astream(self, prompt: Prompt) -> AsyncIterator[PlainMessage]:
        """As `stream`."""
        async for piece in self._engine.astream(self._request(prompt)):
            if piece.text:
                yield _message(piece)

    def _request(self, prompt: Prompt) -> ChatRequest:
        if isinstance(prompt, str):
            prompt = [("user", prompt)]
        return ChatRequest(self._model, [_plain(message) for message in prompt], settings=self._settings)


def _plain(message: Mapping[str, Any] | tuple[str, str]) -> dict[str, Any]:
    if isinstance(message, tuple):
        return {"role": _ROLES.get(message[0], message[0]), "content": message[1]}
    if "role" not in message:
        raise InvalidRequest("A message has a `role` and a `content`.")
    return dict(message)


def _message(piece: ChatPiece) -> PlainMessage:
    return PlainMessage(piece.text)
