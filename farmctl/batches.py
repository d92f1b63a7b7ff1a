"""Submitting a file of tasks: NDJSON, in parts, so that a million lines need no more memory than a thousand."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest, Unavailable
from farmctl.api.session import Session
from farmctl.exit_codes import Exit, joined

LINES_A_REQUEST: Final = 20_000
TRIES: Final = 5
PROBLEMS_SHOWN: Final = 20


def submit_file(session: Session, source: str, agent: str | None) -> Exit:
    """Submit every line of a file. `agent` is that of lines that name none.

    Each line gets an idempotency key unless it has one, so a part that was cut off is sent again without doubles.
    """
    accepted, refused, first, last = 0, 0, None, None
    with ExitStack() as stack:
        lines = _prepared(_open(source, stack), agent)
        start = 0
        while part := list(islice(lines, LINES_A_REQUEST)):
            for row in _send(session, part):
                if "id" in row and row.get("id") is not None:
                    accepted, first, last = accepted + 1, first or row["id"], row["id"]
                else:
                    refused += 1
                    _say_refused(session, start + row["index"] + 1, row["problem"], refused)
            start += len(part)
            session.out.event("batch.progress", f"{accepted:,} accepted", accepted=accepted, refused=refused)
    answer = {"accepted": accepted, "refused": refused, "first_id": first, "last_id": last}
    words = f"{accepted:,} tasks accepted" + (f" ({first} to {last})" if first is not None else "")
    words += f", {refused:,} refused" if refused else ""
    session.out.result(answer, lambda: session.out.say(words))
    return joined([Exit.DONE] * (accepted > 0 or not refused) + [Exit.ERROR] * (refused > 0))


def _open(source: str, stack: ExitStack) -> Iterable[bytes]:
    if source == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(source).expanduser().open("rb"))
    except OSError as error:
        raise InvalidRequest(f"{source} cannot be read: {error.strerror}.") from error


def _prepared(lines: Iterable[bytes], agent: str | None) -> Iterator[bytes]:
    """Lines with a key, and with an agent; one that is no object goes as it is, and the gateway says what is wrong."""
    run = uuid.uuid4().hex
    for number, line in enumerate(lines):
        text = line.strip()
        if not text:
            continue
        try:
            task = json.loads(text)
        except ValueError:
            yield text + b"\n"
            continue
        if isinstance(task, dict):
            task.setdefault("idempotency_key", f"batch-{run}-{number}")
            if agent is not None:
                task.setdefault("agent", agent)
        yield json.dumps(task, separators=(",", ":")).encode() + b"\n"


def _send(session: Session, part: list[bytes]) -> list[dict[str, Any]]:
    for attempt in range(TRIES):
        try:
            return [json.loads(line) for line in session.farm.post_lines("/v1/tasks/batch", iter(part))]
        except Unavailable as error:
            if attempt == TRIES - 1:
                raise
            session.out.event("away", f"{error.problem} Sending this part again.")
            session.sleep(1.0)
    raise AssertionError


def _say_refused(session: Session, line: int, problem: dict[str, Any], number: int) -> None:
    if number <= PROBLEMS_SHOWN:
        session.out.event("batch.refused", f"line {line}: {problem['detail']}", line=line, problem=problem)
    elif number == PROBLEMS_SHOWN + 1:
        session.out.event("batch.refused", "… and more")
