"""What `farmctl dev --once` checks before it says that a farm works. Pure: answers in, claims with verdicts out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

FIGURES: Final = ("vwap", "low", "high", "volume", "trades")


@dataclass(frozen=True, slots=True)
class Check:
    """One claim. `is_skipped`: it could not be checked, for the reason in `detail`."""

    name: str
    is_ok: bool
    detail: str = ""
    is_skipped: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def tasks_succeeded(name: str, tasks: Sequence[Mapping[str, Any]], count: int) -> Check:
    """Every one of at least `count` tasks succeeded."""
    bad = [task for task in tasks if task["state"] != "succeeded"]
    detail = f"{len(tasks) - len(bad)} of {len(tasks)} succeeded"
    for task in bad[:3]:
        error = task.get("error") or {}
        detail += f"; task {task['id']} is {task['state']}: {error.get('type', '')} {error.get('message', '')}".rstrip()
    return Check(name, not bad and len(tasks) >= count, detail)


def answers_given(tasks: Sequence[Mapping[str, Any]]) -> Check:
    """Each question was answered with words."""
    silent = [task["id"] for task in tasks if not str((task.get("output") or {}).get("answer", "")).strip()]
    return Check("every question has an answer", not silent, f"without one: {silent}" if silent else f"{len(tasks)}")


def brief_is_consistent(task: Mapping[str, Any]) -> Check:
    """The figures of one brief agree: low ≤ VWAP ≤ high, something traded, all finite.

    The brief of a product without trades (captures have such products) has no figures, and must say so.
    """
    name = f"figures of task {task['id']} fit one another"
    output = task.get("output")
    figures = output.get("figures", {}) if isinstance(output, dict) else {}
    if isinstance(output, dict) and output.get("trades") == 0 and not figures:
        return Check(name, is_ok=True, detail=f"{output.get('product')}: no trades")
    problems = figure_problems(figures)
    prefix = f"{output.get('product')}: " if isinstance(output, dict) else ""
    return Check(name, not problems, "; ".join(problems) or prefix + ", ".join(f"{k} {figures[k]}" for k in FIGURES))


def briefs_of_trades(tasks: Sequence[Mapping[str, Any]]) -> Check:
    """At least one brief is of trades."""
    briefs = [task for task in tasks if (task.get("output") or {}).get("trades")]
    return Check("a brief tells of trades", bool(briefs), f"{len(briefs)} of {len(tasks)}")


def figure_problems(figures: Mapping[str, Any]) -> list[str]:
    """What is wrong with the figures of a brief."""
    values: dict[str, float] = {}
    problems = []
    for key in FIGURES:
        try:
            values[key] = float(figures[key])
        except (KeyError, TypeError, ValueError):
            problems.append(f"{key} is missing")
            continue
        if not math.isfinite(values[key]):
            problems.append(f"{key} is {values[key]}")
    if problems:
        return problems
    slack = 1e-9 * max(1.0, values["high"])
    if not values["low"] - slack <= values["vwap"] <= values["high"] + slack:
        problems.append(f"VWAP {values['vwap']} is not between low {values['low']} and high {values['high']}")
    if values["trades"] < 1 or values["volume"] <= 0:
        problems.append("nothing was traded")
    imbalance = figures.get("imbalance")
    if imbalance is not None and not -1.0 <= float(imbalance) <= 1.0:
        problems.append(f"imbalance {imbalance} is not between -1 and 1")
    volatility = figures.get("realised_volatility")
    if volatility is not None and not float(volatility) >= 0.0:
        problems.append(f"volatility {volatility} is negative")
    return problems
