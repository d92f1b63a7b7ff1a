"""The summary of a `--once` run, for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from farmctl.dev.farm import DevFarm
from farmctl.dev.once.run import Report
from farmctl.dev.workload import BRIEF_AGENT, brief_text


def print_report(console: Console, report: Report, farm: DevFarm) -> None:
    """Checks, then one line on what ran, then the verdict."""
    console.print()
    for check in report.checks:
        mark, style = ("-", "dim") if check.is_skipped else ("✓", "green") if check.is_ok else ("✗", "red")
        console.print(
            Text(f"{mark} ", style=style).append(check.name, style="default").append(f"  {check.detail}", "dim")
        )
    seen = report.seen
    if seen is not None:
        succeeded = sum(task["state"] == "succeeded" for task in report.tasks)
        console.print(
            Text(
                f"\nnodes {len(seen.ready_nodes)} · replicas {seen.running_replicas} · tasks {succeeded} of "
                f"{len(report.tasks)} succeeded · rows {seen.rows:,} ({farm.market.kind})"
            )
        )
    briefs = [text for task in report.tasks if task["agent"] == BRIEF_AGENT and (text := brief_text(task["output"]))]
    if briefs:
        console.print(Text(f"brief: {briefs[-1]}"))
    for note in farm.notes:
        console.print(Text(note, style="yellow"))
    for command in report.left_behind:
        console.print(Text(f"left behind and ended by hand: {command}", style="red"))
    words = "The farm works." if report.is_ok else "The farm does not work as it should."
    console.print(
        Text(f"{words} Ready after {report.seconds_to_ready:.1f} s, all in {report.seconds:.1f} s.",
             style="bold green" if report.is_ok else "bold red")
    )  # fmt: skip
