"""HTTP to the gateway. Every failure becomes a FarmError with words for a person; nothing else leaves this module."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentfarm import errors
from agentfarm.errors import FarmError, Unavailable
from farmctl.api.connection import Connection

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S: Final = 3.0
READ_TIMEOUT_S: Final = 30.0
STREAM_SILENCE_S: Final = 45.0
"""The gateway sends a comment at least every 15 s."""
AWAY_MAX_S: Final = 15.0
"""How long a request that is safe to repeat is repeated while the farm is away."""
TRY_PAUSE_S: Final = 0.5

_BY_CODE: Final[dict[str, type[FarmError]]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest, errors.NotFound, errors.Forbidden, errors.Conflict, errors.StaleToken,
        errors.CannotPlace, errors.Unavailable,
    )
}  # fmt: skip
_BY_STATUS: Final = {401: errors.Forbidden, 403: errors.Forbidden, 404: errors.NotFound, 503: errors.Unavailable}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event. `id` is that of the last event that had one."""

    event: str
    data: str
    id: str = ""


class FarmClient:
    """One farm's gateway. Cheap to make; connects at the first call."""

    def __init__(self, connection: Connection, sleep: Callable[[float], None] = time.sleep) -> None:
        self.connection = connection
        self._sleep = sleep
        self._http: httpx.Client | None = None

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, timeout_s: float = READ_TIMEOUT_S) -> Any:
        """The JSON of a GET, tried again for a while when the farm is away."""
        return self._again(lambda: self._json("GET", path, params=_clean(params), timeout_s=timeout_s))

    def post(
        self,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """The JSON of a POST. With an idempotency key it is tried again when the farm is away; without, never."""
        headers = {"Idempotency-Key": key} if key is not None else {}

        def once() -> Any:
            return self._json("POST", path, params=_clean(params), json=body, headers=headers, timeout_s=timeout_s)

        return self._again(once) if key is not None else once()

    def delete(self, path: str) -> None:
        """DELETE."""
        self._request("DELETE", path)

    def has(self, path: str) -> bool:
        """Whether a HEAD of it succeeds."""
        return bool(self._again(lambda: self._send("HEAD", path).status_code == 200))

    def put(self, path: str, content: Iterator[bytes], length: int) -> None:
        """PUT a body of a known length."""
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        self._request("PUT", path, content=content, headers=headers, timeout_s=300.0)

    def put_json(self, path: str, body: Any) -> Any:
        """The JSON of a PUT of JSON: equal calls change nothing, so it is tried again when the farm is away."""
        return self._again(lambda: self._json("PUT", path, json=body))

    def post_lines(self, path: str, content: Iterator[bytes]) -> Iterator[bytes]:
        """POST NDJSON; the answer's lines as they come."""
        headers = {"Content-Type": "application/x-ndjson"}
        with self._stream("POST", path, content=content, headers=headers, silence_s=600.0) as answer:
            yield from _lines(answer)

    def post_for_lines(self, path: str, body: Any) -> Iterator[bytes]:
        """POST JSON, answered with NDJSON, line by line; blank lines are signs of life and left out."""
        with self._stream("POST", path, json=body) as answer:
            yield from (line for line in _lines(answer) if line)

    def lines(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """GET NDJSON, line by line; blank lines are signs of life and left out."""
        with self._stream("GET", path, params=_clean(params)) as answer:
            yield from (line for line in _lines(answer) if line)

    def events(self, path: str, params: Mapping[str, Any] | None = None, last_id: str = "") -> Iterator[ServerEvent]:
        """Server-sent events of one connection. Ends when the gateway ends it; raises Unavailable when it breaks."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        with self._stream("GET", path, params=_clean(params), headers=headers) as answer:
            yield from read_events(_lines(answer))

    def post_events(self, path: str, body: Any, params: Mapping[str, Any], key: str) -> Iterator[ServerEvent]:
        """POST, answered with server-sent events. Raises Unavailable when they break off."""
        headers = {"Idempotency-Key": key}
        with self._stream("POST", path, json=body, params=_clean(params), headers=headers) as answer:
            yield from read_events(_lines(answer))

    def close(self) -> None:
        """Close the connections. Safe twice."""
        if self._http is not None:
            self._http.close()
            self._http = None

    # -------------------------------------------------------------- one request

    def _json(self, method: str, path: str, **more: Any) -> Any:
        answer = self._request(method, path, **more)
        return answer.json() if answer.content else None

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self._send(method, path, **more)
        if answer.status_code >= 400:
            raise problem_of(answer.status_code, _body(answer))
        return answer

    def _send(self, method: str, path: str, *, timeout_s: float = READ_TIMEOUT_S, **more: Any) -> httpx.Response:
        with self._said_in_words():
            return self._client().request(method, path, timeout=self._timeout(timeout_s), **more)

    @contextmanager
    def _stream(
        self, method: str, path: str, *, silence_s: float = STREAM_SILENCE_S, **more: Any
    ) -> Iterator[httpx.Response]:
        with (
            self._said_in_words(),
            self._client().stream(method, path, timeout=self._timeout(silence_s), **more) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise problem_of(answer.status_code, _body(answer))
            yield answer

    def _again(self, once: Callable[[], Any]) -> Any:
        for _ in range(int(AWAY_MAX_S / TRY_PAUSE_S)):
            try:
                return once()
            except NoFarm:
                raise
            except Unavailable:
                self._sleep(TRY_PAUSE_S)
        return once()

    @contextmanager
    def _said_in_words(self) -> Iterator[None]:
        import httpx  # noqa: PLC0415 - a third of a second, which 'farmctl --help' must not cost

        try:
            yield
        except httpx.ConnectError as error:
            raise NoFarm(
                f"No farm answers at {self.connection.server} ({self.connection.source}).",
                remedy="Start one with 'farmctl dev', or name another with --server.",
            ) from error
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.connection.server} did not answer in time.", remedy="Try again.") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise errors.InvalidRequest(
                f"{self.connection.server!r} is not the address of a farm: {error}.",
                remedy="Give it as http://HOST:PORT.",
            ) from error
        except httpx.HTTPError as error:
            raise Unavailable(f"The connection to {self.connection.server} broke: {error}.") from error

    def _client(self) -> httpx.Client:
        if self._http is None:
            import httpx  # noqa: PLC0415 - as above

            headers = {"Authorization": f"Bearer {self.connection.token}"}
            is_local = "127.0.0.1" in self.connection.server or "localhost" in self.connection.server
            has_tls = self.connection.server.startswith("https:")  # without it, certificates need not be read: 60 ms
            self._http = httpx.Client(
                base_url=self.connection.server, headers=headers, trust_env=not is_local, follow_redirects=False,
                verify=has_tls,
            )  # fmt: skip
        return self._http

    def _timeout(self, read_s: float) -> httpx.Timeout:
        import httpx  # noqa: PLC0415 - as above

        return httpx.Timeout(read_s, connect=CONNECT_TIMEOUT_S)


class NoFarm(Unavailable):
    """No farm is there: a repetition at once does not help."""


def problem_of(status: int, body: Any) -> FarmError:
    """The error in problem details, or in any other answer."""
    if not isinstance(body, dict) or "detail" not in body:
        return NoFarm(
            f"What answered is not a farm's gateway: it said {status}.", remedy="Look at --server.", status=status
        )
    kind = _BY_CODE.get(str(body.get("code")), _BY_STATUS.get(status, FarmError))
    data = {key: value for key, value in body.items() if key not in ("detail", "remedy", "type", "title")}
    return kind(str(body["detail"]), remedy=str(body.get("remedy", "")), **data)


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _lines(answer: httpx.Response) -> Iterator[bytes]:
    rest = b""
    for piece in answer.iter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _clean(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else {key: value for key, value in params.items() if value is not None}


def read_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Server-sent events out of lines without their ends (WHATWG HTML, section 9.2). Pure.

    Comments are left out, and an unfinished event at the end.
    """
    kind, last_id = "", ""
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        if not line:
            if data or kind:
                yield ServerEvent(kind or "message", "\n".join(data), last_id)
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value
