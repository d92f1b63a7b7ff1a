"""Two builds, compared in pairs: `python -m benchmarks.pairs --other CHECKOUT [--pairs 10] NAME … [-- ARGUMENTS]`.

Runs each benchmark in this checkout and in the other one, each with its own `.venv`, one right after the other. The
first half changes from pair to pair. A machine that others use is slow for both halves of a pair, so what counts is the
median of the pairs' ratios, this checkout's figure by the other's, and how far they lie apart. CPU time depends least
on others. Both halves get the same arguments: those after `--`, else a size that keeps a pair below 90 s.

With `--keep FILE`, each finished pair is a line of that file, and an interrupted run continues from there. When one
half of a pair fails, the program says so and goes on with the others. Then, and only then, it exits with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from benchmarks.farm import machine, progress

HERE: Final = Path(__file__).parents[1]
DEADLINE_S: Final = 600.0
STOP_DEADLINE_S: Final = 60.0
"""How long a benchmark that is interrupted may take to end its farm."""
RUN_CPU: Final = "run_cpu_s"
"""CPU time of the whole benchmark, its start included: of every process that was waited for."""
SIZES: Final[dict[str, tuple[str, ...]]] = {
    "dispatch": ("--tasks", "40000"),
    "latency": ("--tasks", "500"),
    "footprint": ("--idle", "15"),
    "ingest": ("--repeat", "5", "--live-s", "0"),
    "scale": ("--replicas", "50"),
    "backlog": ("--tasks", "50000", "--restart", "10000"),
    "fleet": ("--nodes", "50", "--tasks", "200"),
    "recovery": ("--rounds", "1", "--only", "controller"),
    "journal": ("--tasks", "2000"),
}
CPU_NAMES: Final = re.compile(r"(^|_)(cpu|core)(_|$)|^plain_loop_ms$")
CPU_FIGURES: Final = {
    "ingest": {"frames_per_s", "levels_per_s", "snapshot_ms", "trades_per_s"},
    "placement": {"placements_per_s", "growth_exponent"},
}
"""Figures made of CPU time whose names do not say so."""


class BenchmarkFailed(Exception):
    """A half of a pair has no figures; the words say why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One finished pair, and a line of the kept file. `here`, `other`: figures by name; the builds are commits."""

    benchmark: str
    arguments: tuple[str, ...]
    builds: tuple[str, str]
    here: dict[str, float]
    other: dict[str, float]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure over all pairs. `ratio`: the median of here/other; None where nothing could be divided."""

    figure: str
    is_cpu_time: bool
    pairs: int
    here: float
    other: float
    ratio: float | None
    ratio_min: float | None
    ratio_max: float | None


# ---------------------------------------------------------------- reading and statistics, without I/O


def figures_of(output: str) -> dict[str, float]:
    """The numbers of a benchmark's last line, which is a JSON object; nested ones as `outer.inner`.

    Raises BenchmarkFailed when it is none.
    """
    lines = output.strip().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise BenchmarkFailed("its last line is not JSON") from None
    if not isinstance(result, dict):
        raise BenchmarkFailed("its last line is no JSON object")
    return _numbers(result, "")


def _numbers(result: Mapping[str, Any], prefix: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in result.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + name] = value
    return numbers


def is_cpu_time(benchmark: str, figure: str) -> bool:
    """Whether a figure is CPU time, or made of it."""
    name = figure.rpartition(".")[2]
    return CPU_NAMES.search(name) is not None or figure in CPU_FIGURES.get(benchmark, ())


def compare(pairs: Sequence[Pair]) -> list[Compared]:
    """Every figure that both halves of some pair of one benchmark have, in the order they were said."""
    names = dict.fromkeys(name for pair in pairs for name in pair.here if name in pair.other)
    return [_compare(name, pairs) for name in names]


def _compare(name: str, pairs: Sequence[Pair]) -> Compared:
    values = [(pair.here[name], pair.other[name]) for pair in pairs if name in pair.here and name in pair.other]
    ratios = [here / other for here, other in values if other]
    return Compared(
        name, is_cpu_time(pairs[0].benchmark, name), len(values),
        statistics.median(here for here, _ in values), statistics.median(other for _, other in values),
        statistics.median(ratios) if ratios else None, min(ratios, default=None), max(ratios, default=None),
    )  # fmt: skip


def order(number: int) -> tuple[str, str]:
    """Who begins pair `number`, counted from 1: this one, the other, the other, this one, …"""
    return ("here", "other") if number % 2 else ("other", "here")


def kept_pairs(text: str) -> list[Pair]:
    """The pairs of a kept file. A last line that was cut off is no pair."""
    pairs = []
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            builds = record["builds"]
            pairs.append(Pair(record["benchmark"], tuple(record["arguments"]), (builds[0], builds[1]),
                              dict(record["here"]), dict(record["other"])))  # fmt: skip
    return pairs


def table(pairs: Sequence[Pair]) -> list[str]:
    """One benchmark's figures for people."""
    first = pairs[0]
    lines = [f"{' '.join((first.benchmark, *first.arguments))}: {len(pairs)} pairs",
             f"  {'figure':<28}{'here':>12}{'other':>12}{'here/other':>12}   min … max"]  # fmt: skip
    for row in compare(pairs):
        name = row.figure + (" *" if row.is_cpu_time else "")
        spread = "—" if row.ratio_min is None else f"{row.ratio_min:.3f} … {row.ratio_max:.3f}"
        ratio = "—" if row.ratio is None else f"{row.ratio:.3f}"
        lines.append(f"  {name:<28}{_short(row.here):>12}{_short(row.other):>12}{ratio:>12}   {spread}")
    return lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


# ---------------------------------------------------------------- running


def run(checkout: Path, benchmark: str, arguments: Sequence[str]) -> dict[str, float]:
    """Run one half of a pair to its end, in a session of its own. Raises BenchmarkFailed."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE")}  # fmt: skip
    command = [str(_python(checkout)), "-m", f"benchmarks.{benchmark}", *arguments]
    before = _waited_cpu_s()
    process = subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=DEADLINE_S)
    except BaseException as problem:
        _interrupt(process)
        if isinstance(problem, subprocess.TimeoutExpired):
            raise BenchmarkFailed(f"not done after {DEADLINE_S:g} s") from None
        raise
    if process.returncode != 0:
        raise BenchmarkFailed(f"exit code {process.returncode}\n" + "\n".join(errors.splitlines()[-20:]))
    return {**figures_of(out), RUN_CPU: round(_waited_cpu_s() - before, 3)}


def _interrupt(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does, once, so that it ends its farm; and if it cannot, without."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _waited_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_pair(number: int, benchmark: str, arguments: tuple[str, ...], checkouts: Mapping[str, Path],
             builds: tuple[str, str]) -> Pair:  # fmt: skip
    """Both halves, one right after the other. Raises BenchmarkFailed."""
    figures = {}
    for half in order(number):
        progress(f"pair {number}, {benchmark}: {half}")
        try:
            figures[half] = run(checkouts[half], benchmark, arguments)
        except BenchmarkFailed as problem:
            raise BenchmarkFailed(f"{checkouts[half]}: {problem}") from None
    return Pair(benchmark, arguments, builds, figures["here"], figures["other"])


def _python(checkout: Path) -> Path:
    return checkout / ".venv" / "bin" / "python"


def build_of(checkout: Path) -> str:
    """Its commit; uncommitted changes add a word that tells them from other ones."""
    commit = _git(checkout, "rev-parse", "--short=12", "HEAD").decode().strip() or "unknown"
    changes = _git(checkout, "diff", "HEAD")
    return f"{commit}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else commit


def _git(checkout: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, check=False).stdout


# ---------------------------------------------------------------- the command


def main() -> None:
    """Run what is missing of the pairs, and print a table for people or, with --json, one object for programs."""
    options, own = _options(sys.argv[1:])
    signal.signal(signal.SIGTERM, _terminated)
    builds = (build_of(HERE), build_of(options.other))
    checkouts = {"here": HERE, "other": options.other}
    done = kept_pairs(options.keep.read_text()) if options.keep and options.keep.exists() else []
    sizes = {name: own if own is not None else SIZES.get(name, ()) for name in options.names}
    of = {name: [pair for pair in done if (pair.benchmark, pair.arguments, pair.builds) == (name, sizes[name], builds)]
          for name in options.names}  # fmt: skip
    problems = []
    for number_due in range(1, options.pairs + 1):
        for name in options.names:
            if (number := len(of[name]) + 1) > number_due:
                continue
            try:
                pair = run_pair(number, name, sizes[name], checkouts, builds)
            except BenchmarkFailed as problem:
                problems.append(f"pair {number}, {name}: {problem}")
                continue
            of[name].append(pair)
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(json.dumps(asdict(pair)) + "\n")
    progress("")
    measured = {name: pairs for name, pairs in of.items() if pairs}
    if options.json:
        print(json.dumps({"here": builds[0], "other": builds[1], "machine": machine(), "failed": problems,
                          "benchmarks": {name: [asdict(row) for row in compare(pairs)]
                                         for name, pairs in measured.items()}}))  # fmt: skip
    else:
        print(f"here {builds[0]}, other {builds[1]}; {machine()}; medians; * is CPU time")
        print("\n".join(line for pairs in measured.values() for line in table(pairs)))
    for failed in problems:
        print(f"failed: {failed}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def _options(words: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...] | None]:
    """The options, and what stands after `--`, None where nothing does."""
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="+", metavar="NAME", help="benchmarks, as `python -m benchmarks.NAME`")
    parser.add_argument("--other", type=Path, required=True, help="a checkout with its own .venv")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="a file of finished pairs; those in it are not run again")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(words[:cut])
    options.other = options.other.resolve()
    for checkout in (HERE, options.other):
        if not _python(checkout).exists():
            parser.error(f"{checkout} has no .venv/bin/python: run `make setup` there")
        for name in options.names:
            if not (checkout / "benchmarks" / f"{name}.py").exists():
                parser.error(f"there is no benchmark {name} in {checkout}")
    return options, tuple(words[cut + 1 :]) if cut < len(words) else None


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # so that what runs is ended in order


if __name__ == "__main__":
    main()
