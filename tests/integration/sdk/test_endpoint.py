"""The client of OpenAI-compatible endpoints, against a real HTTP server that plays what a test wrote."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentfarm.errors import Forbidden, InvalidRequest, Unavailable
from agentfarm.sdk import llm
from agentfarm.sdk.models import endpoint
from agentfarm.sdk.models.chat import ChatRequest
from agentfarm.sdk.models.endpoint import EndpointEngine

WHOLE = {
    "model": "big-1",
    "choices": [{"message": {"role": "assistant", "content": "two words"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}
CALLING = {
    "choices": [
        {
            "message": {
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ]
}


def event(data: object) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


STREAM = b": hello\n\n" + b"".join(
    map(
        event,
        [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "two "}}]},
            {"choices": [{"delta": {"content": "words"}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}], "model": "big-1"},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
            b"[DONE]",
        ],
    )
)
STREAMED_CALL = b"".join(
    map(
        event,
        [
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "add"}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1,'}}]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"b":2}'}}]}}]},
            {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            b"[DONE]",
        ],
    )
)


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    breaks_off: bool = False
    """Close the connection in the middle of the body."""


@dataclass
class Server:
    url: str
    answers: list[Answer]
    requests: list[dict[str, Any]]

    def will(self, *answers: Answer | dict[str, Any] | bytes) -> None:
        for given in answers:
            match given:
                case Answer():
                    self.answers.append(given)
                case dict():
                    self.answers.append(Answer(body=json.dumps(given).encode()))
                case bytes():
                    self.answers.append(Answer(body=given, headers={"Content-Type": "text/event-stream"}))


@pytest.fixture
def server() -> Iterator[Server]:
    answers: list[Answer] = []
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
            answer = answers.pop(0)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) + 100 * answer.breaks_off))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{listening.server_port}/v1", answers, requests)
    listening.shutdown()
    listening.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "AGENTFARM_LLM_KEY_FILE", "AGENTFARM_LLM_ROLES"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Waits:
    """Instead of sleeping: how long it would have been."""

    taken: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)

    async def asleep(self, seconds: float) -> None:
        self.taken.append(seconds)


def engine(url: str, waits: Waits, key: Path | None = None) -> EndpointEngine:
    return EndpointEngine(url, key, sleep=waits.sleep, asleep=waits.asleep, chance=random.Random(1))


REQUEST = ChatRequest("big", [{"role": "user", "content": "hi"}])


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_the_model_asks_the_endpoint_with_role_key_and_settings(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    monkeypatch.setenv("AGENTFARM_LLM_URL", server.url)
    monkeypatch.setenv("AGENTFARM_LLM_KEY_FILE", str(key))
    monkeypatch.setenv("AGENTFARM_LLM_ROLES", '{"smart": "big"}')
    server.will(WHOLE, WHOLE)
    model = llm("smart", temperature=0.5)
    for answer in (model.invoke([("system", "s"), ("user", "hi")]), await model.ainvoke("hi")):
        assert answer.content == "two words"
        assert answer.usage_metadata["total_tokens"] == 7
        assert answer.response_metadata["model_name"] == "big-1"
    first = server.requests[0]
    assert (first["path"], first["key"], first["model"]) == ("/v1/chat/completions", "Bearer secret", "big")
    assert first["temperature"] == 0.5
    assert first["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    assert "stream" not in first


async def test_answers_are_streamed_as_they_are_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFARM_LLM_URL", server.url)
    server.will(STREAM, STREAM)
    chunks = list(llm().stream("hi"))
    assert [chunk.content for chunk in chunks if chunk.content] == ["two ", "words"]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.usage_metadata["output_tokens"] == 2
    assert "".join([chunk.content async for chunk in llm().astream("hi")]) == "two words"
    assert server.requests[0]["stream"] is True


async def test_tool_calls_come_whole_or_in_pieces(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFARM_LLM_URL", server.url)
    server.will(CALLING, STREAMED_CALL)
    model = llm().bind_tools([add], tool_choice="any")
    expected = [{"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"}]
    assert model.invoke("add").tool_calls == expected
    whole: Any = None
    async for chunk in model.astream("add"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls == expected
    assert server.requests[0]["tool_choice"] == "required"
    assert server.requests[0]["tools"][0]["function"]["name"] == "add"


async def test_what_may_pass_is_tried_again_as_the_server_asks(server: Server) -> None:
    waits = Waits()
    server.will(
        Answer(429, b"{}", {"Retry-After": "3"}),
        Answer(503),
        WHOLE,
        Answer(500),
        STREAM,
    )
    assert engine(server.url, waits).complete(REQUEST).text == "two words"
    assert "".join([piece.text async for piece in engine(server.url, waits).astream(REQUEST)]) == "two words"
    assert waits.taken[0] == 3.0
    assert 0.5 <= waits.taken[1] <= 1.0
    assert 0.25 <= waits.taken[2] <= 0.5


async def test_tries_have_an_end(server: Server) -> None:
    waits = Waits()
    server.will(*[Answer(503, b'{"error": {"message": "warming up"}}')] * 8)
    with pytest.raises(Unavailable, match="warming up"):
        engine(server.url, waits).complete(REQUEST)
    with pytest.raises(Unavailable, match="warming up"):
        await engine(server.url, waits).acomplete(REQUEST)
    assert len(server.requests) == 8
    assert len(waits.taken) == 6


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (401, Forbidden), (404, InvalidRequest), (501, Unavailable)]
)
def test_what_will_not_pass_is_not_tried_again(server: Server, status: int, kind: type[Exception]) -> None:
    waits = Waits()
    server.will(Answer(status, b'{"error": {"message": "because"}}'))
    with pytest.raises(kind, match="because"):
        list(engine(server.url, waits).stream(REQUEST))
    assert waits.taken == []


def test_a_wait_longer_than_ours_is_not_waited_for(server: Server) -> None:
    waits = Waits()
    server.will(Answer(429, b"", {"Retry-After": "3600"}))
    with pytest.raises(Unavailable):
        engine(server.url, waits).complete(REQUEST)
    assert waits.taken == []


def test_a_stream_that_breaks_off_after_its_first_piece_is_an_error_not_a_second_try(server: Server) -> None:
    waits = Waits()
    begun = event({"choices": [{"delta": {"content": "two "}}]})
    server.will(Answer(200, begun, breaks_off=True))
    stream = engine(server.url, waits).stream(REQUEST)
    assert next(stream).text == "two "
    with pytest.raises(Unavailable):
        next(stream)
    assert waits.taken == []


def test_no_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits()
    with pytest.raises(Unavailable, match="cannot be reached"):
        engine("http://127.0.0.1:9/v1", waits).complete(REQUEST)
    assert len(waits.taken) == endpoint.TRIES_MAX - 1


def test_a_missing_key_file_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nothing-here"):
        engine(server.url, Waits(), tmp_path / "nothing-here").complete(REQUEST)


def test_a_silent_server_runs_into_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(endpoint, "READ_TIMEOUT_S", 0.05)
    monkeypatch.setattr(endpoint, "TRIES_MAX", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match="did not answer in time"):
            engine(url, Waits()).complete(REQUEST)
