"""Frames between replica and daemon: what goes in comes out, however the stream is cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import (
    AgentCall,
    Answer,
    FrameReader,
    Kind,
    Output,
    Pong,
    ProtocolError,
    Result,
    Run,
)

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
texts = st.text(max_size=200)
runs = st.builds(Run, u64, u32, u64, texts, st.binary(max_size=300))
results = st.builds(
    Result, u64, u64, st.sampled_from([1, 2, 4, 5]), u32, st.binary(max_size=300), st.text("abcXYZ", max_size=40),
    texts, texts,
)  # fmt: skip


def bodies(data: bytes) -> list[tuple[int, bytes]]:
    return FrameReader().feed(data)


@given(st.lists(runs, max_size=20))
def test_runs_travel_whole(given_runs: list[Run]) -> None:
    [(kind, body)] = bodies(frames.frame_runs(given_runs))
    assert (kind, frames.read_runs(body)) == (Kind.RUN, given_runs)


@given(st.lists(results, max_size=20))
def test_results_travel_whole_and_texts_only_with_an_error(given_results: list[Result]) -> None:
    [(kind, body)] = bodies(frames.frame_results(map(frames.pack_result, given_results)))
    expected = [r if r.error_type else Result(*r[:5]) for r in given_results]
    assert (kind, frames.read_results(body)) == (Kind.RESULTS, expected)


@given(st.builds(AgentCall, u64, u64, u64, texts, st.binary(max_size=50), st.lists(st.binary(max_size=50), max_size=9)))
def test_calls_travel_whole(call: AgentCall) -> None:
    [(kind, body)] = bodies(frames.frame_call(call))
    assert (kind, frames.read_call(body)) == (Kind.AGENT_CALL, call)


@given(st.binary(max_size=9), st.data())
def test_calls_that_end_early_are_refused(header: bytes, data: st.DataObject) -> None:
    [(_, body)] = bodies(frames.frame_call(AgentCall(1, 2, 3, "checkpoints.put", header, [])))
    with pytest.raises(ProtocolError):
        frames.read_call(body[: data.draw(st.integers(0, len(body) - 1))])


@given(u64, st.sampled_from(Answer), st.lists(st.binary(max_size=50), max_size=9))
def test_answers_travel_whole(number: int, status: Answer, parts: list[bytes]) -> None:
    [(kind, body)] = bodies(frames.frame_answer(number, status, parts))
    assert (kind, frames.read_answer(body)) == (Kind.AGENT_ANSWER, (number, status, parts))


@given(st.lists(st.binary(max_size=100), max_size=10), st.data())
def test_a_stream_may_be_cut_anywhere(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames.frame(Kind.OUTPUT, payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, found = FrameReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[begin:end])
    assert found == [(Kind.OUTPUT, payload) for payload in payloads]


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_parts_travel_whole(parts: list[bytes]) -> None:
    assert frames.unpack_parts(frames.pack_parts(parts)) == parts


@given(st.binary(min_size=1, max_size=30))
def test_parts_that_end_early_are_refused(part: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.unpack_parts(frames.pack_parts([part])[:-1])


def test_a_frame_larger_than_any_is_no_frame() -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(struct.pack("<IB", frames.FRAME_BYTES_MAX + 1, Kind.RUN))


def test_small_frames() -> None:
    pong = Pong(7, 1.5, 2, 3, (4, 2**63))
    assert frames.read_pong(bodies(frames.frame_pong(pong))[0][1]) == pong
    assert frames.read_ping(bodies(frames.frame_ping(9))[0][1]) == 9
    assert frames.read_tokens(bodies(frames.frame_tokens(Kind.KEPT, [1, 2**63]))[0][1]) == (1, 2**63)
    piece = Output(1, 2, 3, b"[]")
    assert frames.read_output(bodies(frames.frame_output(piece))[0][1]) == piece


def test_texts_are_cut_at_their_beginning_and_never_break() -> None:
    packed = frames.pack_result(Result(1, 2, 2, 0, b"", "E", "\ud800" + "x" * 70_000, "end"))
    [result] = frames.read_results(packed)
    assert (len(result.error_message), result.error_traceback) == (65_536, "end")
