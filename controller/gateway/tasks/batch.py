"""Batch submit: NDJSON in, NDJSON out, as fast as one core can read it.

Lines are gathered into chunks, each one command to the engine. A few chunks are in flight while the next is read, so
reading and committing overlap. Answers wait until the last line was read: else a client that writes everything before
it reads anything would wait for us while we wait for it. Answers are small, and their number is bounded.

Lines that are refused make no chunk, so nothing of them waits: reading goes on in slices, between which all others have
their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from agentfarm.errors import FarmError
from agentfarm.service import Tasks
from controller.core.commands import KnownTask, NewTask, SubmitTasks
from controller.core.model import Actor
from controller.gateway.http.answers import dump
from controller.gateway.http.limits import (
    BATCH_CHUNK_BYTES,
    BATCH_CHUNK_LINES,
    BATCH_CHUNKS_IN_FLIGHT,
    BATCH_LINES_MAX,
    BATCH_SLICE_S,
    ENVELOPE_MAX_BYTES,
)
from controller.gateway.http.problems import TooLarge, problem_of
from controller.gateway.scope import Farm
from controller.gateway.tasks.submission import SubmissionReader, refuse_other_work


async def submit_batch(farm: Farm, body: AsyncIterator[bytes], actor: Actor) -> bytes:
    """Submit every line; the answer has one line of JSON for each, in order."""
    payload_max_bytes = farm.settings.payload_max_bytes
    batch = _Batch(farm, SubmissionReader(farm.state, payload_max_bytes), actor)
    async for line in split_lines(body, payload_max_bytes + ENVELOPE_MAX_BYTES):
        if not await batch.take(line):
            break
    return b"".join(
        answer if isinstance(answer, bytes) else b'{"index":%d,"id":%d}\n' % (index, answer)
        for index, answer in enumerate(await batch.finish())
    )


class _Batch:
    """The lines of one request on their way: answers in order, chunks in flight."""

    def __init__(self, farm: Farm, reader: SubmissionReader, actor: Actor) -> None:
        self._farm = farm
        self._reader = reader
        self._actor = actor
        self._answers: list[int | bytes] = []
        """Ids; of a refused line the line of the answer, because the error would hold more."""
        self._slice_ends = 0.0
        self._chunk: list[NewTask] = []
        self._places: list[int] = []
        """Of the chunk's tasks among the answers."""
        self._chunk_bytes = 0
        self._tasks = Tasks("batch")
        self._in_flight: deque[asyncio.Task[None]] = deque()

    async def take(self, line: bytes | FarmError) -> bool:
        """Take one more line. False: the batch has as many lines as it may."""
        if time.monotonic() >= self._slice_ends:
            await asyncio.sleep(0)
            self._slice_ends = time.monotonic() + BATCH_SLICE_S
        if isinstance(line, bytes) and not line.strip():
            return True
        place = len(self._answers)
        if place >= BATCH_LINES_MAX:
            self._answers.append(_refused(place, _too_many()))
            return False
        try:
            if isinstance(line, FarmError):
                raise line
            task = self._reader.read_line(line)
        except FarmError as problem:
            self._answers.append(_refused(place, problem))
            return True
        self._answers.append(0)
        self._chunk.append(task)
        self._places.append(place)
        self._chunk_bytes += len(task.input)
        if len(self._chunk) >= BATCH_CHUNK_LINES or self._chunk_bytes >= BATCH_CHUNK_BYTES:
            await self._send()
        return True

    async def finish(self) -> list[int | bytes]:
        """Wait for every chunk; the answers of all lines."""
        if self._chunk:
            await self._send()
        while self._in_flight:
            await self._in_flight.popleft()
        return self._answers

    async def _send(self) -> None:
        while len(self._in_flight) >= BATCH_CHUNKS_IN_FLIGHT:
            await self._in_flight.popleft()
        self._in_flight.append(self._tasks.awaited(self._submit(tuple(self._chunk), self._places)))
        self._chunk, self._places, self._chunk_bytes = [], [], 0

    async def _submit(self, tasks: tuple[NewTask, ...], places: list[int]) -> None:
        try:
            answers = await self._farm.ask(SubmitTasks(tasks, actor=self._actor))
        except FarmError as problem:
            answers = [problem] * len(tasks)
        for place, answer, task in zip(places, answers, tasks, strict=True):
            checked = await self._checked(answer, task) if isinstance(answer, KnownTask) else answer
            self._answers[place] = _refused(place, checked) if isinstance(checked, FarmError) else checked

    async def _checked(self, earlier: KnownTask, task: NewTask) -> int | FarmError:
        try:
            await refuse_other_work(self._farm.history, earlier, task)
        except FarmError as problem:
            return problem
        return earlier


async def split_lines(body: AsyncIterator[bytes], line_max_bytes: int) -> AsyncIterator[bytes | FarmError]:
    """The lines of a body. One that is too long is skipped to its end and given as the error it is."""
    rest, is_skipping = b"", False
    async for piece in body:
        lines = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
        rest = lines.pop()
        for line in lines:
            if is_skipping or len(line) > line_max_bytes:
                is_skipping = False
                yield _line_too_long(line_max_bytes)
            else:
                yield line
        if len(rest) > line_max_bytes:
            rest, is_skipping = b"", True
    if is_skipping:
        yield _line_too_long(line_max_bytes)
    elif rest:
        yield rest


def _refused(index: int, problem: FarmError) -> bytes:
    return dump({"index": index, "problem": problem_of(problem)}) + b"\n"


def _line_too_long(maximum: int) -> TooLarge:
    return TooLarge(f"The line has more than {maximum:,} bytes.", limit="LINE_MAX_BYTES", maximum=maximum)


def _too_many() -> TooLarge:
    return TooLarge(
        f"A batch has at most {BATCH_LINES_MAX:,} lines; this line and those after it were not read.",
        remedy="Send the rest as another batch.",
        limit="BATCH_LINES_MAX",
        maximum=BATCH_LINES_MAX,
    )
