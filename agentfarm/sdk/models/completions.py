"""OpenAI's chat completions as bytes: requests out, pieces in, and what each status means. Pure.

Source: OpenAI's API reference, "Chat" and "Streaming"; for Retry-After RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping
from typing import Any, Final

from agentfarm.errors import FarmError, Forbidden, InvalidRequest, Unavailable
from agentfarm.sdk.models.chat import ChatPiece, ChatRequest, ToolCallPiece, Usage

DETAIL_MAX: Final = 500
_MAY_PASS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def body_of(request: ChatRequest, *, streamed: bool) -> bytes:
    """The body of a request."""
    body: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.settings}
    if request.tools:
        body["tools"] = request.tools
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def whole_piece(content: bytes) -> ChatPiece:
    """The answer in a response that was not streamed. Raises Unavailable when it is no chat completion."""
    try:
        data = json.loads(content)
        choice = data["choices"][0]
        return _piece(data, choice["message"], choice.get("finish_reason"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unavailable(f"The language model's answer is not a chat completion: {content[:200]!r}.") from error


def streamed_piece(line: str) -> ChatPiece | None:
    """The piece in one line of an event stream; None for comments, other fields and the end."""
    if not line.startswith("data:") or (text := line[5:].strip()) in ("", "[DONE]"):
        return None
    try:
        data = json.loads(text)
        if "error" in data:
            raise Unavailable(f"The language model broke off: {_error_text(data)}", may_pass=False)
        choice = data["choices"][0] if data.get("choices") else {}
        return _piece(data, choice.get("delta") or {}, choice.get("finish_reason"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unavailable(f"The language model sent what is no event: {text[:200]!r}.") from error


def _piece(data: Mapping[str, Any], message: Mapping[str, Any], finish_reason: str | None) -> ChatPiece:
    calls = tuple(
        ToolCallPiece(
            int(call.get("index", place)),
            call.get("id"),
            (call.get("function") or {}).get("name"),
            (call.get("function") or {}).get("arguments") or "",
        )
        for place, call in enumerate(message.get("tool_calls") or ())
    )
    used = data.get("usage")
    usage = Usage(int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)) if used else None
    return ChatPiece(message.get("content") or "", calls, usage, finish_reason, data.get("model"))


def check(status: int, headers: Mapping[str, str], content: bytes, now: float) -> None:
    """Raise what a status other than 2xx means; `now` in Unix seconds, for a Retry-After that is a date.

    Unavailable carries `may_pass` (whether to try again) and `retry_after_s`.
    """
    if 200 <= status < 300:
        return
    problem = f"The language model answered {status}: {_detail(content)}"
    if status in _MAY_PASS:
        raise Unavailable(
            problem, status=status, may_pass=True, retry_after_s=_retry_after_s(headers.get("retry-after", ""), now)
        )
    if status in (401, 403):
        raise Forbidden(problem, remedy="Look at AGENTFARM_LLM_KEY_FILE.", status=status)
    kind: type[FarmError] = InvalidRequest if 400 <= status < 500 else Unavailable
    raise kind(problem, status=status, may_pass=False)


def _detail(content: bytes) -> str:
    try:
        return _error_text(json.loads(content))
    except ValueError:
        return content.decode("utf-8", "replace")[:DETAIL_MAX].strip() or "nothing"


def _error_text(data: Any) -> str:
    error = data.get("error", data) if isinstance(data, dict) else data
    return str(error.get("message", error) if isinstance(error, dict) else error)[:DETAIL_MAX]


def _retry_after_s(text: str, now: float) -> float | None:
    """Seconds, from the header's seconds or date."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None
