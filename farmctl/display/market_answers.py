"""Lines about market data, from a farm's nodes or from a program on this machine: read, shown as progress, kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agentfarm.errors import FarmError, InvalidRequest
from farmctl.api.client import problem_of
from farmctl.api.session import Session
from farmctl.exit_codes import Exit
from farmctl.verb import duration

PROGRAM: Final = "nodeagent.market.audit"
"""A program, started by its name: farmctl imports no code of the node."""
FINDINGS: Final = frozenset({"gap", "product", "agreement"})
SAY_EVERY_S: Final = 2.0
STOP_S: Final = 5.0


@dataclass
class Answers:
    """What the nodes answered. Keys are nodes; an empty one is this machine."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Nodes that were asked and did not answer to the end."""

    def exit(self, *, is_good: bool) -> Exit:
        """0 good, 1 not good or no answer, 4 good so far, but some nodes did not answer."""
        if not is_good or not self.done:
            return Exit.ERROR
        return Exit.PARTLY if self.missing else Exit.DONE

    def summary(self) -> dict[str, Any]:
        """What programs want to know of every answer."""
        return {"nodes": self.done, "problems": self.problems, "is_partial": bool(self.missing)}


def read_answers(session: Session, lines: Iterable[bytes]) -> Answers:
    """Read to the end; show progress meanwhile, problems at once. Raises the refusal of a node that is asked alone."""
    answers = Answers()
    said_s = session.mono()
    for text in lines:
        line: dict[str, Any] = json.loads(text)
        event, node = line.pop("event"), line.pop("node", "")
        if event == "end":
            answers.missing = sorted(set(line["asked"]) - set(line["answered"]))
        elif event == "done":
            answers.done[node] = line
        elif event == "problem":
            answers.problems[node] = line["problem"]
        elif event in ("started", "progress"):
            if not session.out.is_events and session.mono() - said_s < SAY_EVERY_S:
                continue
            said_s = session.mono()
            session.out.event(event, _progress(node, line), node=node, **line)
        elif event in FINDINGS:  # what a later release may add is not for us
            finding = {"node": node} | line
            answers.findings.append(finding)
            session.out.event(event, finding=finding)
    if len(answers.problems) == 1 and not answers.done and len(answers.missing) <= 1:
        problem = next(iter(answers.problems.values()))
        raise problem_of(int(problem.get("status", 500)), problem)
    return answers


def say_problems(session: Session, answers: Answers) -> None:
    """Which nodes did not answer, and why."""
    for node in sorted({*answers.problems, *answers.missing}):
        problem = answers.problems.get(node, {})
        words = problem.get("detail", "It did not answer to the end.")
        session.out.say(f"{node or 'here'}: {words} {problem.get('remedy', '')}".rstrip(), "red")
    if answers.missing and answers.done:
        session.out.say("The answer is partial.", "yellow")


def run_program(arguments: Sequence[str]) -> Iterator[bytes]:
    """The lines of one of the node's programs, run here. Raises FarmError when it ends without its last word."""
    command = [sys.executable, "-m", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    is_over = False
    try:
        assert process.stdout is not None
        for line in process.stdout:
            is_over = b'"event": "done"' in line or b'"event": "problem"' in line
            yield line
        code = process.wait()
        if not is_over:
            raise FarmError(f"{PROGRAM} ended with code {code} and without a last word.", remedy="See above for why.")
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)


def moment(text: str | None) -> str | None:
    """A time as `2h` (ago) or `2026-03-01T12:00:00Z` (UTC where it says nothing), as the farm writes times."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or text.isdigit():
        try:
            ago_s = duration(text)
            assert ago_s is not None  # there is a text
            at = datetime.fromtimestamp(time.time(), UTC) - timedelta(seconds=ago_s)
        except (InvalidRequest, OverflowError, ValueError):
            raise InvalidRequest(
                f"{text!r} is neither how long ago nor a time.", remedy="Write 90s, 2h, 3d, or 2026-03-01T12:00:00Z."
            ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat().replace("+00:00", "Z")


def _progress(node: str, line: dict[str, Any]) -> str:
    if "records" not in line:
        return ""
    share = f", {line['share']:.0%}" if "share" in line else ""
    at = f", at {line['at']}" if "at" in line else ""
    return f"{node + ': ' if node else ''}{line['records']:,} records{share}{at}"
