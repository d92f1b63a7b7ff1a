"""Every figure of docs/performance.md, one program after the other: `python -m benchmarks [--quick] [NAME …]`.

Each program prints its figures on its last line, as JSON; this one compares them with their goals. A program that fails
does not stop the others; then, and only then, this exits with 1. A missed goal is shown, and is no failure: machines
differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.farm import machine

DEADLINE_S: Final = 3600.0
RECORDING: Final = (
    Path(__file__).parents[2] / "shared" / "data" / "coinbase" / "advtrade_2026-08-09_btc-eth_part1.jsonl.gz"
)


@dataclass(frozen=True)
class Program:
    """One benchmark. `goals`: by key, (sign, number); `quick`: its arguments for a first look; `needs`: its input."""

    name: str
    goals: dict[str, tuple[str, float]]
    quick: tuple[str, ...] = ()
    needs: Path | None = None


@dataclass
class Done:
    """How it went. `figures` is empty when it failed."""

    program: Program
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    is_skipped: bool = False


PROGRAMS: Final = (
    Program("placement", {"placements_per_s": (">=", 10_000), "growth_exponent": ("<=", 1.1)}),
    Program("latency", {"p50_ms": ("<=", 3), "p99_ms": ("<=", 10)}, ("--tasks", "200")),
    Program("dispatch", {"cpu_ms_per_task": ("<=", 0.20), "tasks_per_s": (">=", 10_000)}, ("--tasks", "10000")),
    Program("footprint", {
        "daemon_idle_mib": ("<=", 50), "daemon_idle_core_pct": ("<=", 0.5), "controller_idle_mib": ("<=", 150),
        "replica_private_mib": ("<=", 8), "replica_ready_ms": ("<=", 50),
    }, ("--idle", "10")),
    Program("scale", {"seconds": ("<=", 5)}, ("--replicas", "30")),
    Program("backlog", {"controller_mib": ("<=", 500), "restart_s": ("<=", 5)},
            ("--tasks", "50000", "--restart", "10000")),
    Program("fleet", {"dispatch_p99_ms": ("<=", 50), "controller_mib": ("<=", 400)},
            ("--nodes", "50", "--tasks", "200")),
    Program("recovery", {"p50_s": ("<=", 10), "p99_s": ("<=", 10), "controller_p99_s": ("<=", 10),
                         "daemon_p99_s": ("<=", 10)}, ("--rounds", "1")),
    Program("chaos", {"lost": ("<=", 0), "finished_twice": ("<=", 0), "recovery_p99_s": ("<=", 10),
                      "throughput_back_pct": (">=", 95)}, ("--quick",)),
    Program("ingest", {"frames_per_s": (">=", 25_000), "levels_per_s": (">=", 120_000)}, ("--repeat", "3"),
            RECORDING),
    Program("journal", {}, ("--tasks", "2000")),
    Program("growth", {}, ("--quick",)),
)  # fmt: skip


def run(program: Program, *, quick: bool) -> Done:
    """Run one program; its words go to the terminal as they come."""
    if program.needs is not None and not program.needs.exists():
        return Done(program, 0.0, problem=f"{program.needs.name} is not here", is_skipped=True)
    started = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{program.name}", *(program.quick if quick else ())]
    print(f"\n=== {' '.join(command[1:])}", flush=True)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return Done(program, DEADLINE_S, problem=f"not done after {DEADLINE_S:g} s")
    print(done.stdout, end="", flush=True)
    result = Done(program, time.monotonic() - started)
    try:
        result.figures = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        result.problem = "its last line is not JSON"
    if done.returncode != 0:
        result.problem = f"exit code {done.returncode}"
    return result


def table(results: Sequence[Done]) -> list[str]:
    """One line a figure: what was measured, and the goal."""
    lines = [f"{'program':<12}{'figure':<24}{'measured':>14}{'goal':>16}"]
    for result in results:
        if result.problem:
            lines.append(f"{result.program.name:<12}{'skipped' if result.is_skipped else 'FAILED'}: {result.problem}")
        for key, (sign, number) in result.program.goals.items():
            if key in result.figures:
                value = result.figures[key]
                verdict = "" if is_met(value, sign, number) else "  missed"
                goal = f"{sign} {number:,g}"
                lines.append(f"{result.program.name:<12}{key:<24}{value:>14,}{goal:>16}{verdict}")
        for key in result.figures.keys() - result.program.goals.keys():
            if isinstance(result.figures[key], int | float):
                lines.append(f"{result.program.name:<12}{key:<24}{result.figures[key]:>14,}")
    return lines


def is_met(value: float, sign: str, goal: float) -> bool:
    """Whether a figure reaches its goal."""
    return value <= goal if sign == "<=" else value >= goal


def main() -> None:
    """Run them all, or those named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [program.name for program in PROGRAMS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a first look, in a few minutes: small sizes")
    parser.add_argument("--json", type=Path, help="also write the final JSON object there")
    options = parser.parse_args()
    if wrong := [name for name in options.names if name not in names]:
        parser.error(f"there is no benchmark {', '.join(wrong)}")
    load = os.getloadavg()[0]
    chosen = [program for program in PROGRAMS if not options.names or program.name in options.names]
    results = []
    for number, program in enumerate(chosen):
        print(f"{number + 1} of {len(chosen)}: {program.name}", file=sys.stderr, flush=True)
        results.append(run(program, quick=options.quick))
    print(f"\n{machine()}; load {load:.1f} when we began{'; --quick' if options.quick else ''}")
    print("\n".join(table(results)))
    figures = {result.program.name: result.figures for result in results}
    failed = [result.program.name for result in results if result.problem and not result.is_skipped]
    final = json.dumps({**figures, "failed": failed, "machine": machine(), "is_quick": options.quick})
    if options.json:
        options.json.write_text(final + "\n")
    print(final)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
