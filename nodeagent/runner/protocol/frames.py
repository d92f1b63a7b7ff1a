"""What a replica and the daemon say to each other over the replica's socket: bytes to values and back.

A frame is `length u32 | kind u8 | body`, little-endian; `length` counts the body alone. Bodies that a task passes
through are packed structs followed by raw payloads, many attempts in one frame, so that neither side parses or copies
JSON that is not its own. Rare ones (HELLO) favour plainness. No I/O here; both sides use this module.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

PROTOCOL: Final = 1
FRAME_BYTES_MAX: Final = 64 * 2**20
GIVEN_BACK: Final = "GivenBack"
"""The error type of an attempt that was recalled before it began."""


class Kind(IntEnum):
    """Kinds of frames. A receiver ignores those it does not know."""

    # daemon to replica
    RUN = 1
    CANCEL = 2
    PING = 3
    STOP = 4
    KEPT = 5
    AGENT_ANSWER = 6
    LEASE = 7
    RECALL = 8
    # replica to daemon
    HELLO = 16
    STARTED = 17
    OUTPUT = 18
    RESULTS = 19
    PONG = 20
    CHECKPOINT_PUT = 21  # replicas of 0.1; 0.3.0 removes it
    CHECKPOINT_GET = 22  # replicas of 0.1; 0.3.0 removes it
    AGENT_CALL = 23


class Outcome(IntEnum):
    """How an attempt ended, with the numbers of the wire contract."""

    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 4
    INTERRUPTED = 5


class Answer(IntEnum):
    """How the farm answered a call of an attempt."""

    DONE = 0
    LEASE_LOST = 1
    FAILED = 2


class Run(NamedTuple):
    """One attempt to make. `input` is JSON."""

    task_id: int
    attempt: int
    token: int
    thread_id: str
    input: bytes


class Result(NamedTuple):
    """How an attempt ended. `output` is JSON, only when it succeeded."""

    task_id: int
    token: int
    outcome: int
    duration_us: int
    output: bytes = b""
    error_type: str = ""
    error_message: str = ""
    error_traceback: str = ""


class Output(NamedTuple):
    """A piece of a running attempt's output, JSON; seq counts from 1 within the attempt."""

    task_id: int
    token: int
    seq: int
    data: bytes


class AgentCall(NamedTuple):
    """A call of a running attempt to the farm. The daemon passes header and parts on unread."""

    number: int
    """Names the call within its replica; the answer bears it."""
    task_id: int
    token: int
    method: str
    header: bytes
    parts: Sequence[bytes]


class Pong(NamedTuple):
    """Health: how long the event loop has not turned, and what is in hand."""

    seq: int
    blocked_s: float
    waiting: int
    outputs_dropped: int
    running: tuple[int, ...]
    """Tokens being worked on. One that blocks the loop from its first instruction appears here alone."""


class ProtocolError(Exception):
    """The peer sent what is not a frame; the connection cannot be used any further."""


_HEADER: Final = struct.Struct("<IB")
_RUN: Final = struct.Struct("<QIQHI")
_RESULT: Final = struct.Struct("<QQBIIHII")
_OUTPUT: Final = struct.Struct("<QQII")
_LEASE: Final = struct.Struct("<d")
_PONG: Final = struct.Struct("<QdII")
_SEQ: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")
_CALL: Final = struct.Struct("<QQQH")
_ANSWER: Final = struct.Struct("<QB")


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames completed by `data`, as (kind, body). Raises ProtocolError."""
        buffer = self._rest + data if self._rest else data
        frames = []
        at, size = 0, len(buffer)
        while size - at >= _HEADER.size:
            length, kind = _HEADER.unpack_from(buffer, at)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes")
            body = at + _HEADER.size
            if body + length > size:
                break
            at = body + length
            frames.append((kind, buffer[body:at]))
        self._rest = buffer[at:]
        return frames


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(len(body), kind) + body


def frame_json(kind: Kind, value: dict[str, Any]) -> bytes:
    """One frame whose body is a JSON object."""
    return frame(kind, json.dumps(value).encode())


# ------------------------------------------------------------------ attempts


def frame_runs(runs: Iterable[Run]) -> bytes:
    """One RUN frame for all of these."""
    parts: list[bytes] = []
    for task_id, attempt, token, thread_id, payload in runs:
        thread = thread_id.encode()
        parts += (_RUN.pack(task_id, attempt, token, len(thread), len(payload)), thread, payload)
    return frame(Kind.RUN, b"".join(parts))


def read_runs(body: bytes) -> list[Run]:
    """The attempts of a RUN frame."""
    runs = []
    at, size = 0, len(body)
    while at < size:
        task_id, attempt, token, thread_size, input_size = _RUN.unpack_from(body, at)
        thread_at = at + _RUN.size
        input_at = thread_at + thread_size
        at = input_at + input_size
        runs.append(Run(task_id, attempt, token, body[thread_at:input_at].decode(), body[input_at:at]))
    return runs


def pack_result(result: Result) -> bytes:
    """One entry of a RESULTS frame."""
    kind, message, trace = (
        _text(result.error_type, 255),
        _text(result.error_message, 65_536),
        _text(result.error_traceback, 262_144),
    )
    head = _RESULT.pack(
        result.task_id, result.token, result.outcome, min(result.duration_us, 0xFFFF_FFFF),
        len(result.output), len(kind), len(message), len(trace),
    )  # fmt: skip
    return b"".join((head, result.output, kind, message, trace))


def frame_results(packed: Iterable[bytes]) -> bytes:
    """One RESULTS frame of entries made by `pack_result`."""
    return frame(Kind.RESULTS, b"".join(packed))


def read_results(body: bytes) -> list[Result]:
    """The entries of a RESULTS frame."""
    results = []
    at, size = 0, len(body)
    while at < size:
        task_id, token, outcome, duration_us, n_output, n_type, n_message, n_trace = _RESULT.unpack_from(body, at)
        at += _RESULT.size
        output = body[at : at + n_output]
        at += n_output
        if not n_type:  # the common case pays for no text
            results.append(Result(task_id, token, outcome, duration_us, output))
            at += n_message + n_trace
            continue
        kind, message, trace = (
            body[at : at + n_type].decode(),
            body[at + n_type : at + n_type + n_message].decode(errors="replace"),
            body[at + n_type + n_message : at + n_type + n_message + n_trace].decode(errors="replace"),
        )
        at += n_type + n_message + n_trace
        results.append(Result(task_id, token, outcome, duration_us, output, kind, message, trace))
    return results


def frame_output(output: Output) -> bytes:
    """One OUTPUT frame."""
    head = _OUTPUT.pack(output.task_id, output.token, output.seq, len(output.data))
    return frame(Kind.OUTPUT, head + output.data)


def read_output(body: bytes) -> Output:
    """The piece in an OUTPUT frame."""
    task_id, token, seq, size = _OUTPUT.unpack_from(body)
    return Output(task_id, token, seq, body[_OUTPUT.size : _OUTPUT.size + size])


# ------------------------------------------------------------------ tokens and health


def frame_tokens(kind: Kind, tokens: Sequence[int]) -> bytes:
    """A STARTED, KEPT, CANCEL or RECALL frame."""
    return frame(kind, struct.pack(f"<{len(tokens)}Q", *tokens))


def read_tokens(body: bytes) -> tuple[int, ...]:
    """The tokens of a STARTED, KEPT, CANCEL or RECALL frame."""
    return struct.unpack(f"<{len(body) // 8}Q", body)


def frame_ping(seq: int) -> bytes:
    """A PING frame; its PONG bears the same seq."""
    return frame(Kind.PING, _SEQ.pack(seq))


def read_ping(body: bytes) -> int:
    """The seq of a PING."""
    (seq,) = _SEQ.unpack(body)
    return int(seq)


def frame_lease(until_s: float) -> bytes:
    """A LEASE frame: until when exclusive attempts may run, on the machine's monotonic clock."""
    return frame(Kind.LEASE, _LEASE.pack(until_s))


def read_lease(body: bytes) -> float:
    """The moment in a LEASE."""
    (until_s,) = _LEASE.unpack(body)
    return float(until_s)


def frame_pong(pong: Pong) -> bytes:
    """A PONG frame."""
    return frame(Kind.PONG, _PONG.pack(*pong[:4]) + struct.pack(f"<{len(pong.running)}Q", *pong.running))


def read_pong(body: bytes) -> Pong:
    """The health in a PONG."""
    seq, blocked_s, waiting, outputs_dropped = _PONG.unpack_from(body)
    return Pong(seq, blocked_s, waiting, outputs_dropped, read_tokens(body[_PONG.size :]))


# ------------------------------------------------------------------ calls of attempts: parts with their lengths


def frame_call(call: AgentCall) -> bytes:
    """One AGENT_CALL frame."""
    method = call.method.encode()
    head = _CALL.pack(call.number, call.task_id, call.token, len(method))
    return frame(Kind.AGENT_CALL, b"".join((head, method, pack_parts((call.header, *call.parts)))))


def read_call(body: bytes) -> AgentCall:
    """The call in an AGENT_CALL frame. Raises ProtocolError when it ends early."""
    try:
        number, task_id, token, size = _CALL.unpack_from(body)
        at = _CALL.size + size
        header, *parts = unpack_parts(body[at:])
        return AgentCall(number, task_id, token, body[_CALL.size : at].decode(), header, parts)
    except (struct.error, ValueError) as problem:
        raise ProtocolError("a call ends early") from problem


def frame_answer(number: int, status: Answer, parts: Iterable[bytes]) -> bytes:
    """One AGENT_ANSWER frame."""
    return frame(Kind.AGENT_ANSWER, _ANSWER.pack(number, status) + pack_parts(parts))


def read_answer(body: bytes) -> tuple[int, int, list[bytes]]:
    """The number of the call, how it was answered, and the answer's parts."""
    number, status = _ANSWER.unpack_from(body)
    return number, status, unpack_parts(body[_ANSWER.size :])


def pack_parts(parts: Iterable[bytes]) -> bytes:
    """Byte strings, each after its length."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def unpack_parts(body: bytes) -> list[bytes]:
    """The reverse of `pack_parts`. Raises ProtocolError when it ends early."""
    parts = []
    at, size = 0, len(body)
    while at < size:
        if size - at < _LENGTH.size:
            raise ProtocolError("a part ends early")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if size - at < length:
            raise ProtocolError("a part ends early")
        parts.append(body[at : at + length])
        at += length
    return parts


def _text(text: str, limit: int) -> bytes:
    """UTF-8 of a text that may hold lone surrogates, cut to a limit: its end says most, so that is what stays."""
    data = text.encode(errors="replace")
    return data if len(data) <= limit else data[-limit:]
