"""The farm's chat models with LangChain's interface: invoke, stream, tools, structured output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from agentfarm.sdk.models.chat import ChatPiece, ChatRequest


class FarmChatModel(BaseChatModel):
    """A chat model for a role; `engine` answers."""

    engine: Any
    role: str
    model: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "agentfarm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"role": self.role, "model": self.model, **self.settings}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model, knowing these tools. tool_choice: `auto`, `none`, `any`, or the name of one."""
        schemas = [convert_to_openai_tool(tool) for tool in tools]
        names = {tool["function"]["name"] for tool in schemas}
        choice = tool_choice
        if choice in ("any", True):
            choice = "required"
        elif isinstance(choice, str) and choice in names:
            choice = {"type": "function", "function": {"name": choice}}
        kwargs.pop("ls_structured_output_format", None)
        return super().bind(tools=schemas, **({} if choice is None else {"tool_choice": choice}), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(self.engine.complete(self._request(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self.engine.acomplete(self._request(messages, stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self.engine.stream(self._request(messages, stop, kwargs)):
            chunk = ChatGenerationChunk(message=_chunk(piece))
            if run_manager is not None:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self.engine.astream(self._request(messages, stop, kwargs)):
            chunk = ChatGenerationChunk(message=_chunk(piece))
            if run_manager is not None:
                await run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> ChatRequest:
        given = dict(kwargs)
        tools, choice = given.pop("tools", []), given.pop("tool_choice", None)
        given.pop("ls_structured_output_format", None)
        settings = {**self.settings, **given, **({"stop": stop} if stop else {})}
        plain = convert_to_openai_messages(messages)
        return ChatRequest(self.model, plain if isinstance(plain, list) else [plain], tools, choice, settings)


def _result(piece: ChatPiece) -> ChatResult:
    chunk = _chunk(piece)
    message = AIMessage(
        content=chunk.content,
        tool_calls=chunk.tool_calls,
        invalid_tool_calls=chunk.invalid_tool_calls,
        usage_metadata=chunk.usage_metadata,
        response_metadata=chunk.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunk(piece: ChatPiece) -> AIMessageChunk:
    used = piece.usage
    metadata = {"model_name": piece.model, "finish_reason": piece.finish_reason}
    is_last = piece.finish_reason is not None
    return AIMessageChunk(
        content=piece.text,
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=call.index)
            for call in piece.tool_calls
        ],
        usage_metadata=None
        if used is None
        else UsageMetadata(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.input_tokens + used.output_tokens,
        ),
        response_metadata={name: value for name, value in metadata.items() if value} if is_last else {},
    )
