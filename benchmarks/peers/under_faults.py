"""The chaos run's driver on another task queue: the same tasks at the same pace, and kill -9 of a worker.

Acknowledged and not ended within the deadline counts as lost; ended twice by the agents' own record counts as finished
twice. No queue here offers more than that to look at.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.farm import progress
from benchmarks.load import Piece
from benchmarks.peers.queues import QUEUES, Queue
from benchmarks.scene import agent_lines
from benchmarks.verdict import Judgement

WORKERS, CONCURRENCY = 3, 8
"""Little more than the work needs, so that all have some."""
RESTART_AFTER_S: Final = 1.0
CALM_S: Final = 5.0
BETWEEN_S: Final = 10.0
ENDS_WITHIN_S: Final = 150.0
"""After the last fault: twice a minute's retry task, and some."""
LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True)
class Outcome:
    """What came of it. Rates are of the calm before the faults and the calm at the end."""

    words: str
    times: int
    pieces: list[Judgement]
    held_up_s: list[float]
    before_per_s: float
    after_per_s: float


class _Load:
    """Submits at a steady pace from a thread of its own, and notes ends as the agents' record tells them."""

    def __init__(self, queue: Queue, record: Path, *, per_s: float, seconds: tuple[float, float], seed: int) -> None:
        self.pieces: list[Piece] = []
        self._queue, self._record = queue, record
        self._per_s, self._seconds = per_s, seconds
        self._chance = random.Random(seed)
        self._stopping, self._is_submitting = threading.Event(), True
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._submit, self._watch)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit_no_more(self) -> None:
        self._is_submitting = False

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        due = time.monotonic()
        while self._is_submitting and not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += 1 / self._per_s
            piece = Piece(f"peer-{len(self.pieces)}", round(self._chance.uniform(*self._seconds), 3), time.monotonic())
            self._queue.ask(op="work", record=str(self._record), seconds=piece.seconds, key=piece.key)
            piece.ids.add(0)
            self.pieces.append(piece)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            now = time.monotonic()
            ended = {line["note"] for line in agent_lines(self._record) if line["event"] == "ended"}
            for piece in self.pieces:
                if piece.finished_at is None and piece.key in ended:
                    piece.finished_at = now


def measure(name: str, folder: Path, *, rounds: int, per_s: float, seconds: tuple[float, float], seed: int) -> Outcome:
    """Run it. Raises queues.Missing where the queue cannot be had."""
    record, chance = folder / "record", random.Random(seed)
    progress(f"{name}: starting it")
    with QUEUES[name](folder, workers=WORKERS, concurrency=CONCURRENCY) as queue:
        load = _Load(queue, record, per_s=per_s, seconds=seconds, seed=seed)
        load.start()
        faults: list[float] = []
        try:
            _wait_until(lambda: any(piece.finished_at for piece in load.pieces), 60.0)
            time.sleep(CALM_S * 2)
            before = _rate(load.pieces, time.monotonic())
            for number in range(rounds):
                progress(f"{name}: {number + 1} of {rounds}: kill -9 of a worker")
                faults.append(time.monotonic())
                worker = chance.randrange(WORKERS)
                queue.kill_worker(worker)
                time.sleep(RESTART_AFTER_S)
                queue.start_worker(worker)
                time.sleep(BETWEEN_S)
            after = _rate(load.pieces, time.monotonic())
            load.submit_no_more()
            progress(f"{name}: letting all work end")
            _wait_until(lambda: all(piece.finished_at for piece in load.pieces), ENDS_WITHIN_S)
        finally:
            load.stop()
    touched = {p.key: p for at in faults for p in load.pieces if _is_touched(p, at)}
    return Outcome(
        f"{queue.words}: kill -9 of a worker", rounds, _judge(load.pieces, record),
        [p.held_up_s for p in touched.values() if p.finished_at is not None], before, after,
    )  # fmt: skip


def _judge(pieces: list[Piece], record: Path) -> list[Judgement]:
    counts = Counter((line["note"], line["event"]) for line in agent_lines(record))
    judged = []
    for piece in pieces:
        ends = counts[piece.key, "ended"]
        judged.append(Judgement(
            lost="" if ends else f"{piece.key} was acknowledged and has not ended {ENDS_WITHIN_S:g} s later",
            twice=[f"{piece.key} ended {ends} times"] if ends > 1 else [],
            executions=counts[piece.key, "began"],
        ))  # fmt: skip
    return judged


def _is_touched(piece: Piece, at: float) -> bool:
    return piece.submitted_at <= at + 1.0 and (piece.finished_at is None or piece.finished_at > at)


def _rate(pieces: list[Piece], until: float) -> float:
    return sum(p.finished_at is not None and until - CALM_S < p.finished_at <= until for p in pieces) / CALM_S


def _wait_until(done: object, deadline_s: float) -> None:
    assert callable(done)
    deadline = time.monotonic() + deadline_s
    while not done() and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
