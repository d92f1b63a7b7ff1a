"""Run histories: `python -m tests.simulation [--seed N] [--histories N] [--seconds S] [--jobs J]`.

With --seed one history is told event by event. Otherwise histories run from --first on; each failure is made short and
printed with its seed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from tests.simulation.history import History
from tests.simulation.laws import Broken
from tests.simulation.plans import plan
from tests.simulation.shrink import report
from tests.simulation.story import tell

CHUNK = 20


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one history and tell it")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--histories", type=int, help="how many; default: as many as the seconds allow")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time (default 60)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed)
    deadline_s = float("inf") if arguments.histories is not None else arguments.seconds
    return run_many(arguments.first, arguments.histories, deadline_s, arguments.jobs)


def replay(seed: int) -> int:
    """One history, told as it happens."""
    history = History(plan(seed))
    tell(history)
    verdict = history.run()
    if verdict.problem is None:
        sys.stdout.write(
            f"seed {seed}: every law held; {verdict.tasks} tasks ended {verdict.ended_s:.1f} s after peace\n"
        )
        return 0
    if not isinstance(verdict.problem, Broken):
        traceback.print_exception(verdict.problem)
    sys.stdout.write(f"\n{report(verdict)}\n")
    return 1


def run_many(first: int, histories: int | None, seconds: float, jobs: int) -> int:
    """Many histories on several processes. Prints the rate; returns 1 if any failed."""
    began = time.monotonic()
    done = failed = tasks = 0
    chunks = _chunks(first, histories)
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(run_chunk, chunk) for chunk in itertools.islice(chunks, 2 * jobs)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                failures, chunk_tasks, count = future.result()
                done, tasks, failed = done + count, tasks + chunk_tasks, failed + len(failures)
                for failure in failures:
                    sys.stdout.write(f"\n{failure}\n")
                if time.monotonic() - began < seconds:
                    running |= {pool.submit(run_chunk, chunk) for chunk in itertools.islice(chunks, 1)}
            rate = done / (time.monotonic() - began) * 3600
            sys.stdout.write(f"\r{done} histories, {tasks} tasks, {failed} failed, {rate:.0f} an hour ")
            sys.stdout.flush()
    sys.stdout.write("\n")
    return 1 if failed else 0


def _chunks(first: int, histories: int | None) -> Iterator[range]:
    """Seeds in small ranges."""
    for start in itertools.count(first, CHUNK):
        if histories is not None and start >= first + histories:
            return
        yield range(start, start + CHUNK if histories is None else min(start + CHUNK, first + histories))


def run_chunk(seeds: range) -> tuple[list[str], int, int]:
    """Reports of failures, tasks and histories of a range of seeds."""
    failures, tasks = [], 0
    for seed in seeds:
        verdict = History(plan(seed)).run()
        tasks += verdict.tasks
        if verdict.problem is not None:
            failures.append(report(verdict))
    return failures, tasks, len(seeds)


if __name__ == "__main__":
    sys.exit(main())
