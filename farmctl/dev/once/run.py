"""`farmctl dev --once`: give the farm work, check that it is done, and report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from farmctl.dev.farm import DevFarm
from farmctl.dev.market.choice import MarketKind
from farmctl.dev.once.checks import Check, answers_given, brief_is_consistent, briefs_of_trades, tasks_succeeded
from farmctl.dev.snapshot import Glimpse
from farmctl.dev.stop import StopWish
from farmctl.dev.workload import BRIEF_AGENT, LABELS, QUESTION_AGENT, QUESTIONS

QUESTION_TASKS: Final = 12
BRIEF_TASKS: Final = 4
TASKS_WITHIN_S: Final = 90.0
ROWS_WITHIN_S: Final = 60.0
QUIET_S: Final = 2.0
"""The last rows of a recording that is over are stored when none came for so long."""
POLL_S: Final = 0.2


@dataclass(slots=True)
class Report:
    """The findings of a run; `to_dict` is what --json prints."""

    checks: list[Check] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    seen: Glimpse | None = None
    seconds_to_ready: float = 0.0
    seconds: float = 0.0
    left_behind: list[str] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return all(check.is_ok for check in self.checks) and not self.left_behind

    def to_dict(self, farm: DevFarm) -> dict[str, Any]:
        """For programs."""
        seen = self.seen or Glimpse({})
        return {
            "ok": self.is_ok,
            "nodes": [{"name": node["name"], "state": node["state"]} for node in seen.nodes],
            "replicas": [
                {key: replica.get(key) for key in ("name", "state", "node", "ready_ms", "private_mib")}
                for replica in seen.replicas
            ],
            "tasks": {
                "submitted": len(self.tasks),
                "succeeded": sum(task["state"] == "succeeded" for task in self.tasks),
                "farm": dict(seen.tasks),
            },
            "market": {
                "source": str(farm.market.kind),
                "description": farm.market.words,
                "rows": seen.rows,
                "state": seen.market_state,
                "briefs": [task["output"] for task in self.tasks if task["agent"] == BRIEF_AGENT],
            },
            "seconds_to_ready": round(self.seconds_to_ready, 2),
            "seconds": round(self.seconds, 2),
            "checks": [check.to_dict() for check in self.checks],
            "notes": farm.notes,
            "left_behind": self.left_behind,
        }


def work_through(farm: DevFarm, agents: Sequence[str], wish: StopWish, report: Report) -> None:
    """Submit, wait, check; the findings go into the report. Raises FarmError, Interrupted."""
    ids = [_submit(farm, QUESTION_AGENT, {"question": QUESTIONS[n % len(QUESTIONS)]}) for n in range(QUESTION_TASKS)
           if QUESTION_AGENT in agents]  # fmt: skip
    market = _market_check(farm, wish)
    report.checks.append(market)
    if market.is_ok and not market.is_skipped and BRIEF_AGENT in agents:
        count = max(BRIEF_TASKS, len(farm.feeding.products))
        products = [farm.feeding.products[number % len(farm.feeding.products)] for number in range(count)]
        ids += [_submit(farm, BRIEF_AGENT, {"product": product}) for product in products]
    report.tasks = _ended(farm, ids, wish)
    report.seen = farm.look()
    questions = [task for task in report.tasks if task["agent"] == QUESTION_AGENT]
    briefs = [task for task in report.tasks if task["agent"] == BRIEF_AGENT]
    if QUESTION_AGENT in agents:
        report.checks += [tasks_succeeded("questions succeed", questions, QUESTION_TASKS), answers_given(questions)]
    if briefs:
        report.checks.append(tasks_succeeded("briefs succeed", briefs, BRIEF_TASKS))
        report.checks += [brief_is_consistent(task) for task in briefs if task["state"] == "succeeded"]
        report.checks.append(briefs_of_trades(briefs))
    report.checks.append(_nodes_check(farm, report.seen))


def _submit(farm: DevFarm, agent: str, given: dict[str, Any]) -> int:
    return int(farm.client.post("/v1/tasks", {"agent": agent, "input": given, "labels": LABELS})["id"])


def _market_check(farm: DevFarm, wish: StopWish) -> Check:
    """Wait for the first rows, and for a capture until all of it was played."""
    name = "market data is stored"
    if farm.market.kind is MarketKind.OFF:
        return Check(name, is_ok=True, detail=farm.market.words, is_skipped=True)
    deadline = time.monotonic() + ROWS_WITHIN_S
    rows, quiet_since = 0, time.monotonic()
    while time.monotonic() < deadline:
        farm.keep()
        seen = farm.look()
        if seen is not None and seen.market_failure:
            return Check(name, is_ok=False, detail=seen.market_failure)
        if seen is not None and seen.rows != rows:
            rows, quiet_since = seen.rows, time.monotonic()
        is_played = farm.market.kind is not MarketKind.CAPTURE or (
            seen is not None and seen.is_recording_over and time.monotonic() - quiet_since >= QUIET_S
        )
        if rows and is_played:
            return Check(name, is_ok=True, detail=f"{rows:,} rows, {farm.market.words}")
        wish.pause(POLL_S)
    return Check(name, is_ok=bool(rows), detail=f"{rows:,} rows within {ROWS_WITHIN_S:.0f} s")


def _ended(farm: DevFarm, ids: Sequence[int], wish: StopWish) -> list[dict[str, Any]]:
    """The tasks, ended or as they are at the deadline."""
    deadline = time.monotonic() + TASKS_WITHIN_S
    tasks: dict[int, dict[str, Any]] = {}
    while True:
        farm.keep()
        for task in ids:
            if not tasks.get(task, {}).get("is_final"):
                tasks[task] = farm.client.get(f"/v1/tasks/{task}")
        if all(task["is_final"] for task in tasks.values()) or time.monotonic() > deadline:
            return [tasks[task] for task in ids]
        wish.pause(POLL_S)


def _nodes_check(farm: DevFarm, seen: Glimpse | None) -> Check:
    names = set(farm.settings.node_names)
    ready = seen.ready_nodes if seen is not None else set()
    return Check("every node is ready", names <= ready, f"{len(names & ready)} of {len(names)}")
