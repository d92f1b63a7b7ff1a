"""A farm of real processes under steady load and faults: `python -m benchmarks.chaos [--rounds 3] [--seed 1]`.

A client submits short tasks under idempotency keys and remembers what was acknowledged; the agents note every side
effect in a file of their own; a witness reads PostgreSQL. Faults come one after the other, in an order and with victims
that the seed decides; the next comes when the work of the last has recovered. Lost: acknowledged, and never succeeded.
Finished twice: one key with two tasks, an end that changed, an output that is not the winning attempt's, or an attempt
that ran twice. Recovery: how much longer than its own duration work took that was live at the fault or came within a
second after it. Exits with 1 if anything was lost or finished twice, or the farm did not come back.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import faults
from benchmarks.farm import machine, progress
from benchmarks.faults import Fault
from benchmarks.load import Piece
from benchmarks.peers import under_faults
from benchmarks.peers.queues import QUEUES, Missing
from benchmarks.scene import Scene, agent_lines
from benchmarks.verdict import Judgement, Verdict, judge

CALM_S: Final = 3.0
"""Before and after each fault; throughput is measured there."""
RECOVERY_DEADLINE_S: Final = 60.0
SECONDS: Final = (0.1, 0.9)
"""How long a task takes."""
WIDTH: Final = 52
"""Of the table's first column; longer words move the rest of the line."""
QUICK: Final = ("replica-killed", "daemon-killed", "controller-in-submit", "postgres-killed", "partition",
                "leader-killed")  # fmt: skip
PEER: Final = ("node-killed",)
"""What other queues call the loss of a worker."""


@dataclass(slots=True)
class Happening:
    """One fault that was made. Pieces `first` to `last` were submitted around it."""

    fault: Fault
    at: float
    first: int
    last: int = 0
    before_per_s: float = 0.0
    after_per_s: float = 0.0
    held_up_s: list[float] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Run:
    """One scene from its first fault to its verdict."""

    happenings: list[Happening]
    verdict: Verdict


def run(scene: Scene, plan: Sequence[Fault]) -> Run:
    """Make the faults in turn, let all work end, and judge it."""
    happenings: list[Happening] = []
    time.sleep(CALM_S)
    for number, fault in enumerate(plan):
        progress(f"{number + 1} of {len(plan)}: {fault.words}")
        first = happenings[-1].last if happenings else 0
        happening = _happen(scene, fault, first)
        happenings.append(happening)
        if happening.problem:
            break
    progress("letting all work end")
    scene.background.do(scene.load.stop(RECOVERY_DEADLINE_S), RECOVERY_DEADLINE_S * 2)
    _wait_until(lambda: all(piece.finished_at is not None for piece in scene.load.pieces if piece.is_acknowledged))
    ended = scene.witness.look_at_everything()
    verdict = judge(scene.load.pieces, agent_lines(scene.record), ended, scene.witness.keys(), scene.witness.changed)
    return Run(happenings, verdict)


def _happen(scene: Scene, fault: Fault, first: int) -> Happening:
    pieces = scene.load.pieces
    happening = Happening(fault, time.monotonic(), first)
    happening.before_per_s = _rate(pieces, happening.at - CALM_S)
    try:
        fault.deed(scene)
        _wait_until(lambda: time.monotonic() > happening.at + 1.0)
        came = pieces[:]  # later work may be late for want of a faster machine, which is not this fault's doing
        if not _wait_until(lambda: not _open(came)):
            keys = [piece.key for piece in _open(came)]
            happening.problem = f"{len(keys)} pieces of work did not recover: {keys[:10]}"
        scene.wait_ready(RECOVERY_DEADLINE_S)
    except Exception as problem:
        happening.problem = f"{type(problem).__name__}: {problem}"
    recovered = time.monotonic()
    time.sleep(CALM_S)
    happening.after_per_s = _rate(pieces, recovered)
    touched = _touched(pieces, happening.at)
    happening.held_up_s = [piece.held_up_s for piece in touched if piece.finished_at is not None]
    happening.last = len(pieces)
    return happening


def _touched(pieces: Sequence[Piece], at: float) -> list[Piece]:
    """Live at that moment, or first submitted within the next second."""
    return [
        piece
        for piece in list(pieces)
        if piece.submitted_at <= at + 1.0 and (piece.finished_at is None or piece.finished_at > at)
    ]


def _open(pieces: Sequence[Piece]) -> list[Piece]:
    """Not ended: what the fault still holds up."""
    return [piece for piece in pieces if piece.finished_at is None]


def _rate(pieces: Sequence[Piece], since: float) -> float:
    """Tasks ended a second in the calm that began then."""
    ended = sum(p.finished_at is not None and since < p.finished_at <= since + CALM_S for p in list(pieces))
    return ended / CALM_S


def _wait_until(done: object, deadline_s: float = RECOVERY_DEADLINE_S) -> bool:
    assert callable(done)
    deadline = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# ------------------------------------------------------------------ telling


def p99(values: Sequence[float]) -> float:
    """The 99th percentile; of one value, that value."""
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else sum(values)


@dataclass(frozen=True)
class Row:
    """One line of the table: all happenings of one kind of fault."""

    words: str
    times: int
    pieces: list[Judgement]
    held_up_s: list[float]
    before: float
    after: float

    @property
    def back_pct(self) -> float:
        return 100 * self.after / self.before if self.before else 0.0

    def __str__(self) -> str:
        lost, twice = sum(bool(piece.lost) for piece in self.pieces), sum(len(piece.twice) for piece in self.pieces)
        runs = sum(piece.executions for piece in self.pieces) / max(1, len(self.pieces))
        held = sorted(self.held_up_s) or [0.0]
        return (
            f"{self.words:<{WIDTH}}{self.times:>6}{len(self.pieces):>7}{lost:>6}{twice:>6}{runs:>8.3f}"
            f"{statistics.median(held):>8.2f}{p99(held):>8.2f}{held[-1]:>8.2f}{self.back_pct:>7.0f}"
        )


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row for each kind of fault, in the order of faults.ALL."""
    rows = []
    for fault in faults.ALL:
        mine = [(run, happening) for run in runs for happening in run.happenings if happening.fault is fault]
        if mine:
            rows.append(_row(fault.words, mine))
    return rows


def _row(words: str, happenings: Sequence[tuple[Run, Happening]]) -> Row:
    return Row(
        words,
        len(happenings),
        [judged for run, happening in happenings for judged in run.verdict.pieces[happening.first : happening.last]],
        [held for _, happening in happenings for held in happening.held_up_s],
        sum(happening.before_per_s for _, happening in happenings),
        sum(happening.after_per_s for _, happening in happenings),
    )


def report(runs: Sequence[Run], skipped: Sequence[tuple[str, str]], peers: Sequence[Row], seed: int) -> int:
    """Print the table for people and one JSON object for programs. The exit code is of the farm alone."""
    rows = rows_of(runs)
    total = _row("all of it", [(run, happening) for run in runs for happening in run.happenings])
    _print_table([*rows, total, *peers], skipped)
    print(f"seed {seed}; defaults; {machine()}. runs: executions a task. p50, p99, max: how long work was held up")
    print("beyond its own duration. back: tasks ended a second once recovered, of those before the fault.")
    if peers:
        print(f"Peers: {'; '.join(f'{queue.words} on {queue.settings}' for queue in QUEUES.values())}.")
        print(f"Of a peer's tasks, those are lost that did not end within {under_faults.ENDS_WITHIN_S:g} s.")
    stored = sum(run.verdict.stored_unanswered for run in runs)
    unanswered = sum(run.verdict.unanswered for run in runs)
    print(f"{stored} submits were stored although their answer was lost; {unanswered} were never answered.")
    lost, twice = [one for run in runs for one in run.verdict.lost], [one for run in runs for one in run.verdict.twice]
    problems = [
        f"after {happening.fault.words}: {happening.problem}"
        for run in runs
        for happening in run.happenings
        if happening.problem
    ]
    for words in (*lost, *twice, *problems):
        print(f"  {words}")
    print(json.dumps({
        "lost": len(lost), "finished_twice": len(twice), "faults": total.times,
        "recovery_p99_s": round(max((p99(row.held_up_s) for row in rows if row.held_up_s), default=0.0), 2),
        "throughput_back_pct": round(total.back_pct, 1), "seed": seed,
    }))  # fmt: skip
    return 1 if lost or twice or problems else 0


def _print_table(rows: Sequence[Row], skipped: Sequence[tuple[str, str]]) -> None:
    print(f"{'fault':<{WIDTH}}{'times':>6}{'tasks':>7}{'lost':>6}{'twice':>6}{'runs':>8}"
          f"{'p50 s':>8}{'p99 s':>8}{'max s':>8}{'back %':>7}")  # fmt: skip
    for row in rows:
        print(row)
    for words, why in skipped:
        print(f"{words:<{WIDTH}} skipped: {why}")


# ------------------------------------------------------------------ the program


def plan_of(chosen: Sequence[Fault], rounds: int, chance: random.Random) -> list[Fault]:
    """The faults in a seeded order, each kind as often as it should be."""
    plan: list[Fault] = []
    for _ in range(rounds):
        part = [fault for fault in chosen for _ in range(fault.times)]
        chance.shuffle(part)
        plan += part
    return plan


def _peer(name: str, folder: Path, options: argparse.Namespace) -> Row:
    folder.mkdir()
    got = under_faults.measure(
        name, folder, rounds=options.rounds, per_s=options.rate, seconds=SECONDS, seed=options.seed
    )
    return Row(got.words, got.times, got.pieces, got.held_up_s, got.before_per_s, got.after_per_s)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", default="", help=f"some only: {', '.join(fault.name for fault in faults.ALL)}")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--rate", type=float, default=30.0, help="tasks a second")
    parser.add_argument("--quick", action="store_true", help="one round of the most telling faults")
    parser.add_argument("--peer", action="store_true",
                        help=f"the loss of a node here, and of a worker of {' and '.join(QUEUES)}")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="leave all files behind, also when all went well")
    options = parser.parse_args()
    names = [name for name in options.faults.split(",") if name] or (
        PEER if options.peer else QUICK if options.quick else ()
    )
    by_name = {fault.name: fault for fault in faults.ALL}
    if wrong := [name for name in names if name not in by_name]:
        parser.error(f"there is no fault {', '.join(wrong)}")
    chosen = [by_name[name] for name in names] or list(faults.ALL)
    runs: list[Run] = []
    skipped: list[tuple[str, str]] = []
    peers: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    code = 1
    try:
        for standby in (False, True):
            chosen_now = [fault for fault in chosen if fault.needs_standby == standby]
            if not chosen_now:
                continue
            progress("starting two controllers on one PostgreSQL, and nodes" if standby else "starting a farm")
            place = folder / ("two" if standby else "one")
            place.mkdir()
            with Scene(
                nodes=options.nodes, replicas=options.replicas, standby=standby, per_s=options.rate, seconds=SECONDS,
                seed=options.seed, folder=place,
            ) as scene:  # fmt: skip
                missing = [(fault, fault.missing(scene)) for fault in chosen_now]
                skipped += [(fault.words, why) for fault, why in missing if why]
                possible = [fault for fault, why in missing if not why]
                plan = plan_of(possible, 1 if options.quick else options.rounds, random.Random(options.seed))
                runs.append(run(scene, plan))
        for name in QUEUES if options.peer else ():
            try:
                peers.append(_peer(name, folder / name, options))
            except Missing as problem:
                skipped.append((name, str(problem)))
        progress("")
        code = report(runs, skipped, peers, options.seed)
    finally:
        if code == 0 and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"what is left of it: {folder}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
