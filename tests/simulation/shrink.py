"""A failing history made short: drop what does not matter to the failure, half by half, then one by one."""

from __future__ import annotations

import dataclasses

from tests.simulation.history import History, Verdict
from tests.simulation.laws import Broken
from tests.simulation.plans import Happening

RUNS_MAX = 400


def shrink(verdict: Verdict, runs_max: int = RUNS_MAX) -> Verdict:
    """The shortest history found that breaks the same law. Gives up after `runs_max` runs."""
    best, runs = _cut_after(verdict), 0
    size = max(1, len(best.plan.happenings) // 2)
    while runs < runs_max:
        is_shorter = False
        start = 0
        while start < len(best.plan.happenings) and runs < runs_max:
            kept = (*best.plan.happenings[:start], *best.plan.happenings[start + size :])
            candidate = _run(best, kept)
            runs += 1
            if _is_same(candidate, verdict):
                best, is_shorter = _cut_after(candidate), True
            else:
                start += size
        if size > 1:
            size //= 2
        elif not is_shorter:
            break
    return best


def _run(verdict: Verdict, happenings: tuple[Happening, ...]) -> Verdict:
    return History(dataclasses.replace(verdict.plan, happenings=happenings)).run()


def _cut_after(verdict: Verdict) -> Verdict:
    """What lies after the failure cannot have caused it."""
    kept = tuple(it for it in verdict.plan.happenings if it.at <= verdict.at_s)
    return dataclasses.replace(verdict, plan=dataclasses.replace(verdict.plan, happenings=kept))


def _is_same(candidate: Verdict, verdict: Verdict) -> bool:
    return _name(candidate) == _name(verdict)


def _name(verdict: Verdict) -> str:
    problem = verdict.problem
    return problem.law if isinstance(problem, Broken) else type(problem).__name__


def report(verdict: Verdict) -> str:
    """A failed history for people: the law, the shortest history found, and how to see it again."""
    short = shrink(verdict)
    plan = short.plan
    lines = [
        f"seed {plan.seed}: {type(short.problem).__name__}: {short.problem}",
        f"at {short.at_s:.3f} simulated seconds; {len(plan.happenings)} of its happenings are enough:",
        f"  machines of {', '.join(map(str, plan.machines))} MiB, {plan.deployments} deployments",
        *(f"  {happening}" for happening in plan.happenings),
        f"replay: python -m tests.simulation --seed {plan.seed}",
    ]
    return "\n".join(lines)
