"""A chat model without a model: deterministic answers, made from the prompt alone.

With it agents run, and their tests mean something, with no key and no GPU. Equal prompts give equal answers. An answer
repeats what the prompt holds: the facts listed in it (`name: value` lines), or the sentences that share most words with
the question. The model calls a bound tool once, when the request requires it or the prompt names the tool, and then
reports the tool's answer. It knows nothing else, and says so when the prompt holds no answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from agentfarm.sdk.models.chat import ChatPiece, ChatRequest, ToolCallPiece, Usage, text_of

FACTS_MAX: Final = 12
SENTENCES_MAX: Final = 2
_FACT: Final = re.compile(
    r"^[ \t]*[-*•]?[ \t]*(?P<name>[A-Za-z][\w /%()-]{0,40}?)[ \t]*[:=][ \t]+(?P<value>\S.*?)[ \t]*$", re.MULTILINE
)
_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:\.(?=\S)[^.!?\n]*)*[.!?]?")
_WORD: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_COMMON: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could did do does for from has have how i in is it its me my of on or please "
        "tell that the their there this to was were what when where which who why will with would you your about",
    )
)


class ScriptedEngine:
    """Answers requests by the rules above; streams word by word."""

    def complete(self, request: ChatRequest) -> ChatPiece:
        """The answer to a request."""
        call = _tool_call(request)
        text = "" if call else _answer(request)
        read = sum(len(text_of(message).split()) for message in request.messages)
        return ChatPiece(
            text=text,
            tool_calls=(call,) if call else (),
            usage=Usage(read, max(1, len(text.split()))),
            finish_reason="tool_calls" if call else "stop",
            model="scripted",
        )

    async def acomplete(self, request: ChatRequest) -> ChatPiece:
        """As `complete`."""
        return self.complete(request)

    def stream(self, request: ChatRequest) -> Iterator[ChatPiece]:
        """The same answer, word by word; the last piece has the usage."""
        whole = self.complete(request)
        for word in re.findall(r"\S+\s*|\s+", whole.text):
            yield ChatPiece(text=word)
        yield ChatPiece("", whole.tool_calls, whole.usage, whole.finish_reason, whole.model)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatPiece]:
        """As `stream`; gives way to others between words."""
        for piece in self.stream(request):
            yield piece
            await asyncio.sleep(0)


def _answer(request: ChatRequest) -> str:
    last = request.messages[-1] if request.messages else {}
    if last.get("role") == "tool":
        return f"The tool answered: {text_of(last).strip()}"
    prompt = _last_of(request, "user")
    facts = list(dict.fromkeys((match["name"].strip(), match["value"]) for match in _FACT.finditer(prompt)))
    question = _question(prompt)
    if question is None and len(facts) > 1:
        return _facts_told(facts)
    context = "\n".join(text_of(message) for message in request.messages[:-1]) + "\n" + prompt
    sentences = _sentences_about(question or prompt, context)
    if sentences:
        return " ".join(sentences)
    if facts:
        return _facts_told(facts)
    asked = " ".join((question or prompt).split())
    return f"Nothing in the prompt answers {asked[:200]!r}, and no language model is configured."


def _facts_told(facts: list[tuple[str, str]]) -> str:
    """A sentence or two that state the facts in their order."""
    parts = [f"{name.replace('_', ' ')} {value.rstrip('.')}" for name, value in facts[:FACTS_MAX]]
    more = f" ({len(facts) - FACTS_MAX} more not told)" if len(facts) > FACTS_MAX else ""
    first, rest = parts[0], parts[1:]
    text = f"{first[0].upper()}{first[1:]}"
    return f"{text}: {'; '.join(rest)}{more}." if rest else f"{text}."


def _question(prompt: str) -> str | None:
    asked = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n", prompt) if part.strip().endswith("?")]
    return asked[-1] if asked else None


def _sentences_about(question: str, context: str) -> list[str]:
    """The sentences of the context with most words of the question, in their order; none when no word is shared."""
    asked = set(_WORD.findall(question.lower())) - _COMMON
    ranked = []
    sentences = dict.fromkeys(match[0].strip() for match in _SENTENCE.finditer(context))
    for place, sentence in enumerate(sentences):
        if sentence and not sentence.endswith("?") and sentence != question.strip():
            shared = len(asked & set(_WORD.findall(sentence.lower())))
            if shared:
                ranked.append((-shared, place, sentence))
    best = sorted(ranked)[:SENTENCES_MAX]
    enough = [item for item in best if item is best[0] or item[0] * 2 < best[0][0]]
    return [sentence for _, _, sentence in sorted(enough, key=lambda item: item[1])]


def _tool_call(request: ChatRequest) -> ToolCallPiece | None:
    """A call of a bound tool: when one is required, or the user names it; never twice in a row."""
    last = request.messages[-1] if request.messages else {}
    if not request.tools or last.get("role") == "tool" or request.tool_choice == "none":
        return None
    prompt = _last_of(request, "user")
    by_name = {tool["function"]["name"]: tool["function"] for tool in request.tools}
    choice = request.tool_choice
    if isinstance(choice, dict):
        name = str(choice.get("function", {}).get("name", ""))
    elif choice in by_name:
        name = choice
    else:
        spoken = _plain(prompt)
        named = (tool for tool in by_name if _plain(tool) in spoken)
        name = next(named, "") or (next(iter(by_name)) if choice in ("any", "required", True) else "")
    if name not in by_name:
        return None
    arguments = _arguments(by_name[name].get("parameters", {}), prompt)
    return ToolCallPiece(0, f"call_{len(request.messages)}", name, json.dumps(arguments, sort_keys=True))


def _arguments(schema: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Values for the required parameters: facts of the prompt of the same name, its numbers in order, its text."""
    facts = {_plain(match["name"]): match["value"] for match in _FACT.finditer(prompt)}
    numbers = iter(re.findall(r"-?\d+(?:\.\d+)?", prompt))
    properties = schema.get("properties", {})
    return {
        name: _argument(properties.get(name, {}), facts.get(_plain(name)), numbers, prompt)
        for name in schema.get("required", properties)
    }


def _argument(schema: dict[str, Any], fact: str | None, numbers: Iterator[str], prompt: str) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return next((item for item in schema["enum"] if str(item).lower() in prompt.lower()), schema["enum"][0])
    match schema.get("type"):
        case "integer" | "number" as kind:
            text = fact if fact and re.fullmatch(r"-?\d+(\.\d+)?", fact) else next(numbers, "0")
            return int(float(text)) if kind == "integer" else float(text)
        case "boolean":
            return bool(fact and fact.lower() in ("true", "yes", "1"))
        case "array":
            return []
        case "object":
            return {}
    return fact if fact is not None else prompt.strip()


def _last_of(request: ChatRequest, role: str) -> str:
    for message in reversed(request.messages):
        if message.get("role") == role:
            return text_of(message)
    return text_of(request.messages[-1]) if request.messages else ""


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
