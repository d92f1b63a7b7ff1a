"""Steady work for a farm under faults, and a witness of its ends.

`Load` submits tasks at a steady pace, each under a key of its own, and repeats a submit under the same key until it is
answered. `Witness` reads from PostgreSQL, by a connection of its own, which tasks have ended and how. Both note times
by this process's monotonic clock alone, so that no clock of the farm is trusted.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psycopg2

ANSWER_DEADLINE_S: Final = 5.0
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 0.5
OTHERS_EVERY: Final = 4
BURST_WAIT_S: Final = 3
LOOK_EVERY_S: Final = 0.05
KNOWN: Final = 200
"""The status of a submit whose key was stored before."""


@dataclass(slots=True)
class Piece:
    """One piece of work, from the first try to submit it. Times are monotonic seconds of this process."""

    key: str
    seconds: float
    submitted_at: float
    ids: set[int] = field(default_factory=set)
    """Of the tasks that answers named: one, if all is well."""
    tries: int = 0
    agent: str = ""
    wait_s: int = 0
    """For the result, in the submit itself."""
    was_stored_unanswered: bool = False
    """An answer was lost although the task was stored."""
    refused: str = ""
    finished_at: float | None = None

    @property
    def is_acknowledged(self) -> bool:
        return bool(self.ids)

    @property
    def held_up_s(self) -> float:
        """How much longer than its own duration it took from the first try to the stored end."""
        assert self.finished_at is not None
        return max(0.0, self.finished_at - self.submitted_at - self.seconds)


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished task as PostgreSQL has it. All of it is final: a row seen twice must be equal."""

    task: int
    state: str
    attempt: int
    token: int | None
    node: str | None
    output: bytes
    finished_at: Any


class Load:
    """Submits `per_s` tasks a second, each taking between `seconds[0]` and `seconds[1]`; on one event loop.

    agents: the first gets most tasks, each other one in OTHERS_EVERY.

    gateways: base URLs, tried in turn; the one that answered last comes first.
    """

    def __init__(
        self,
        gateways: list[str],
        token: str,
        agents: list[str],
        record: str,
        *,
        per_s: float,
        seconds: tuple[float, float],
        seed: int,
    ) -> None:
        self.pieces: list[Piece] = []
        self._gateways = gateways
        self._headers = {"Authorization": f"Bearer {token}"}
        self._agents, self._record = agents, record
        self._per_s, self._seconds = per_s, seconds
        self._seed = seed
        self._chance = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: httpx.AsyncClient | None = None
        self._pacer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        timeout = httpx.Timeout(ANSWER_DEADLINE_S, pool=None)
        self._http = httpx.AsyncClient(headers=self._headers, limits=limits, timeout=timeout)
        self._pacer = asyncio.create_task(self._pace())

    async def stop(self, deadline_s: float) -> None:
        """Submit nothing new; wait for the answers that are still out, then give up on them. Safe twice."""
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, return_exceptions=True)
            self._pacer = None
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def burst(self, count: int, seconds: float) -> None:
        """Submit that many at once, every other one waiting for its result; returns when they are on their way."""
        for number in range(count):
            self._submit_one(seconds, wait_s=number % 2 * BURST_WAIT_S)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._submit_one(self._chance.uniform(*self._seconds))
            due = max(due + 1 / self._per_s, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _submit_one(self, seconds: float, wait_s: int = 0) -> None:
        key = f"chaos-{self._seed}-{len(self.pieces)}"
        first, *others = self._agents
        agent = self._chance.choice(others) if others and len(self.pieces) % OTHERS_EVERY == 0 else first
        piece = Piece(key, round(seconds, 3), time.monotonic(), agent=agent, wait_s=wait_s)
        self.pieces.append(piece)
        task = asyncio.create_task(self._until_answered(piece))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_answered(self, piece: Piece) -> None:
        """Try until somebody says that it is stored. Anything but "try again" is remembered as a refusal."""
        given = {"record": self._record, "seconds": piece.seconds, "note": piece.key}
        wait_s, was_unanswered = RETRY_FIRST_S, False
        while True:
            piece.tries += 1
            gateway = self._gateways[0]
            try:
                assert self._http is not None
                answer = await self._http.post(
                    f"{gateway}/v1/tasks?wait={piece.wait_s}", json={"agent": piece.agent, "input": given},
                    headers={"Idempotency-Key": piece.key},
                )  # fmt: skip
                if answer.is_success:
                    piece.ids.add(int(answer.json()["id"]))
                    piece.was_stored_unanswered = was_unanswered and answer.status_code == KNOWN
                    return
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    piece.refused = f"{answer.status_code} {answer.text[:300]}"
                    return
            except (httpx.HTTPError, OSError):
                pass
            was_unanswered = True
            self._turn_from(gateway)
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)

    def _turn_from(self, gateway: str) -> None:
        if self._gateways[0] == gateway:
            self._gateways.append(self._gateways.pop(0))


_FINISHED = """
SELECT id, state, attempt, token, node, output, finished_at FROM task_finished WHERE {where} ORDER BY id
"""


class Witness:
    """Looks at the database itself, from a thread of its own, and notes when each piece's task has ended.

    dsn: called for each connection; raises OSError while there is none.
    """

    def __init__(self, dsn: Callable[[], str], load: Load) -> None:
        self._dsn = dsn
        self._load = load
        self._ended: dict[int, Ended] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self.changed: list[str] = []
        """Ends that did not stay as they were first seen, in words."""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Safe twice."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look_at_everything(self) -> dict[int, list[Ended]]:
        """Every finished task, by id, compared with what was seen before. Raises psycopg2.Error."""
        tasks: dict[int, list[Ended]] = {}
        connection = self._connect()
        try:
            for row in _rows(connection, "id > %s", 0):
                self._note(row)
                tasks.setdefault(row.task, []).append(row)
        finally:
            connection.close()
        self.changed += [f"task {task} had ended, and its end is gone" for task in self._ended.keys() - tasks.keys()]
        return tasks

    def keys(self) -> dict[str, set[int]]:
        """Every key that PostgreSQL knows, finished or not, with its tasks. Raises psycopg2.Error."""
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT options->>'idempotency_key', id FROM task WHERE options ? 'idempotency_key' UNION ALL"
                    " SELECT options->>'idempotency_key', id FROM task_finished WHERE options ? 'idempotency_key'"
                )
                keys: dict[str, set[int]] = {}
                for key, task in cursor.fetchall():
                    keys.setdefault(key, set()).add(task)
                return keys
        finally:
            connection.close()

    def _run(self) -> None:
        connection: Any = None
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                connection = connection or self._connect()
                self._look(connection)
            except (psycopg2.Error, OSError):  # the database is away: nothing ends meanwhile
                if connection is not None:
                    with suppress(psycopg2.Error):
                        connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _look(self, connection: Any) -> None:
        open_pieces = {task: p for p in list(self._load.pieces) if p.finished_at is None for task in list(p.ids)}
        if not open_pieces:
            return
        rows = _rows(connection, "id = ANY(%s)", list(open_pieces))
        now = time.monotonic()
        for row in rows:
            self._note(row)
            open_pieces[row.task].finished_at = now

    def _note(self, row: Ended) -> None:
        before = self._ended.setdefault(row.task, row)
        if before != row:
            self.changed.append(f"task {row.task} ended as {before}, and later as {row}")

    def _connect(self) -> Any:
        connection = psycopg2.connect(self._dsn(), connect_timeout=2, application_name="witness",
                                      options="-c statement_timeout=10000")  # fmt: skip
        connection.autocommit = True
        return connection


def _rows(connection: Any, where: str, argument: Any) -> list[Ended]:
    with connection.cursor() as cursor:
        cursor.execute(_FINISHED.format(where=where), (argument,))
        return [
            Ended(task, state, attempt, token, node, bytes(output or b""), finished_at)
            for task, state, attempt, token, node, output, finished_at in cursor.fetchall()
        ]
