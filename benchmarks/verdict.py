"""What came of every piece of work: pure judgement over what was submitted, what ran, and what is stored.

Three independent witnesses are held against each other: the client (which submits were acknowledged, under which id),
the agents' own file (which execution began and ended, where), and PostgreSQL (which task ended how).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.load import Ended, Piece


@dataclass(slots=True)
class Judgement:
    """Of one piece. Words for people; empty is good."""

    lost: str = ""
    twice: list[str] = field(default_factory=list)
    executions: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """By the pieces' order."""

    pieces: list[Judgement]
    unanswered: int
    """Submits without an answer at the end; they promise nothing."""
    stored_unanswered: int
    """Submits whose answer was lost although the task was stored: a second submit of the key found the task."""

    @property
    def lost(self) -> list[str]:
        return [piece.lost for piece in self.pieces if piece.lost]

    @property
    def twice(self) -> list[str]:
        return [words for piece in self.pieces for words in piece.twice]


KEEPS_CHECKPOINTS: Final = frozenset({"stepper"})
"""Agents whose second attempt goes on where the first had come to."""


def judge(
    pieces: Sequence[Piece],
    lines: Iterable[Mapping[str, Any]],
    ended: Mapping[int, Sequence[Ended]],
    keys: Mapping[str, set[int]],
    changed: Iterable[str],
) -> Verdict:
    """lines: of agents. ended: PostgreSQL's finished tasks. keys: its tasks by key. changed: ends that moved."""
    began: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    whole: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        (began[line["note"]] if line["event"] == "began" else whole)[line["run"]] = line
    judgements = []
    for piece in pieces:
        runs = list(began[piece.key].values())
        tasks = piece.ids | keys.get(piece.key, set()) | {run["task"] for run in runs}
        judgement = Judgement(executions=len(runs), lost=_lost(piece, ended), twice=_doubles(piece.key, tasks, runs))
        for task in tasks:
            judgement.twice += _wrong_ends(
                ended.get(task, ()), piece.key, whole, keeps_checkpoints=piece.agent in KEEPS_CHECKPOINTS
            )
        judgements.append(judgement)
    if judgements:
        judgements[-1].twice += list(changed)
    return Verdict(
        judgements,
        unanswered=sum(not piece.is_acknowledged for piece in pieces),
        stored_unanswered=sum(piece.was_stored_unanswered for piece in pieces),
    )


def _lost(piece: Piece, ended: Mapping[int, Sequence[Ended]]) -> str:
    if piece.refused:
        return f"{piece.key} was refused: {piece.refused}"
    states = [row.state for task in piece.ids for row in ended.get(task, ())]
    if piece.is_acknowledged and "succeeded" not in states:
        return f"{piece.key} was acknowledged as task {sorted(piece.ids)} and is {states or 'not ended'}"
    return ""


def _doubles(key: str, tasks: set[int], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = [f"{key} became {len(tasks)} tasks: {sorted(tasks)}"] if len(tasks) > 1 else []
    attempts = Counter((run["task"], run["attempt"]) for run in runs)
    problems += [f"{key}: attempt {one[1]} of task {one[0]} ran {n} times" for one, n in attempts.items() if n > 1]
    return problems


def _wrong_ends(
    rows: Sequence[Ended], key: str, whole: Mapping[str, Mapping[str, Any]], *, keeps_checkpoints: bool
) -> list[str]:
    """One end, and its output that of the attempt whose token won.

    keeps_checkpoints: or of an earlier one, whose last checkpoint held the end: then the winner had nothing left to do.
    """
    if len(rows) > 1:
        return [f"{key} ended {len(rows)} times: {rows}"]
    for row in rows:
        if row.state != "succeeded":
            continue
        output = json.loads(row.output)
        stored = (row.task, row.attempt, row.node, key)
        if keeps_checkpoints and output["attempt"] < row.attempt:
            worked = {line["attempt"] for line in whole.values() if line["task"] == row.task}
            if row.attempt not in worked:
                stored = (row.task, output["attempt"], output["node"], key)
        for name, line in (("output", output), ("execution", whole.get(output["run"]))):
            if line is None or (line["task"], line["attempt"], line["node"], line["note"]) != stored:
                return [f"{key}: stored as {row}, but its {name} is {line}"]
    return []
