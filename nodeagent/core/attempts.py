"""The attempts in hand on this node: which, where, since when, and what has been decided about each.

Pure: time is an argument, and what follows is returned. Owns nothing but its table; the supervisor does what it says.
An attempt is here from Assign until its result is handed to the outbox, or until it is certain that it has no result
to send.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from agentfarm.wire import link_pb2 as wire
from nodeagent.runner.protocol.frames import Outcome, Result


class Ending(Enum):
    """Why we end an attempt that would go on, and what is reported then."""

    TIMED_OUT = wire.OUTCOME_TIMED_OUT
    CANCELLED = wire.OUTCOME_CANCELLED
    INTERRUPTED = wire.OUTCOME_INTERRUPTED
    STALE = 0
    """Its lease is gone: nothing is reported."""


class Attempt:
    """One attempt in hand. Mutable and slotted: there are ten thousand a second."""

    __slots__ = ("ending", "is_exclusive", "kill_at", "replica_id", "started_at", "task_id", "timeout_s", "token")

    def __init__(self, token: int, task_id: int, replica_id: int, timeout_s: float, is_exclusive: bool) -> None:
        self.token = token
        self.task_id = task_id
        self.replica_id = replica_id
        self.timeout_s = timeout_s
        self.is_exclusive = is_exclusive
        self.started_at: float | None = None
        self.ending: Ending | None = None
        self.kill_at: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether its replica has not begun it, as far as we heard, and nothing else was decided about it."""
        return self.started_at is None and self.ending is None

    @property
    def due_at(self) -> float | None:
        """When something must happen to it whatever the replica does."""
        if self.kill_at is not None:
            return self.kill_at
        if self.started_at is None or not self.timeout_s:
            return None
        return self.started_at + self.timeout_s


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the time has brought: attempts that ran too long, and replicas that did not end theirs when they should."""

    timed_out: tuple[Attempt, ...]
    replicas_to_kill: frozenset[int]
    next_at: float | None


class Attempts:
    """All attempts in hand, by fencing token."""

    def __init__(self) -> None:
        self._by_token: dict[int, Attempt] = {}
        self._by_replica: dict[int, dict[int, Attempt]] = {}
        self.exclusive: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_token)

    def __contains__(self, token: int) -> bool:
        return token in self._by_token

    @property
    def tokens(self) -> Collection[int]:
        """Every token in hand, waiting ones too."""
        return self._by_token.keys()

    @property
    def running_count(self) -> int:
        """Those that their replica works on now."""
        return sum(attempt.started_at is not None for attempt in self._by_token.values())

    def get(self, token: int) -> Attempt | None:
        """The attempt, if it is in hand."""
        return self._by_token.get(token)

    def is_of(self, replica_id: int, token: int, task_id: int) -> bool:
        """Whether that replica holds that attempt of that task."""
        attempt = self._by_token.get(token)
        return attempt is not None and attempt.replica_id == replica_id and attempt.task_id == task_id

    def of(self, replica_id: int) -> list[Attempt]:
        """Those of one replica."""
        return list(self._by_replica.get(replica_id, {}).values())

    def has_work(self, replica_id: int) -> bool:
        """Whether a replica has any."""
        return bool(self._by_replica.get(replica_id))

    def add(self, attempt: Attempt) -> None:
        """Take one in hand."""
        self._by_token[attempt.token] = attempt
        self._by_replica.setdefault(attempt.replica_id, {})[attempt.token] = attempt
        if attempt.is_exclusive:
            self.exclusive.add(attempt.token)

    def remove(self, token: int) -> Attempt | None:
        """Let go of one."""
        attempt = self._by_token.pop(token, None)
        if attempt is not None:
            del self._by_replica[attempt.replica_id][token]
            if attempt.is_exclusive:
                self.exclusive.discard(token)
        return attempt

    def forget_replica(self, replica_id: int) -> None:
        """The replica is gone for good and holds nothing."""
        if not self._by_replica.get(replica_id):
            self._by_replica.pop(replica_id, None)

    def start(self, tokens: Iterable[int], now: float, replica_id: int) -> tuple[list[int], float | None]:
        """Their replica works on them now; it speaks for its own alone.

        Returns those that were waiting, and when the earliest is due.
        """
        fresh = []
        due_at = None
        for token in tokens:
            attempt = self._by_token.get(token)
            if attempt is None or attempt.started_at is not None or attempt.replica_id != replica_id:
                continue
            attempt.started_at = now
            fresh.append(token)
            if attempt.due_at is not None and (due_at is None or attempt.due_at < due_at):
                due_at = attempt.due_at
        return fresh, due_at

    def end(self, tokens: Iterable[int], ending: Ending, kill_at: float) -> list[Attempt]:
        """Decide that these end; what was decided before about one stays, unless the controller no longer
        wants its result."""
        ended = []
        for token in tokens:
            attempt = self._by_token.get(token)
            if attempt is None:
                continue
            if attempt.ending is None or ending is Ending.STALE:
                attempt.ending = ending
            if attempt.kill_at is None:
                attempt.kill_at = kill_at
                ended.append(attempt)
        return ended

    def sweep(self, now: float) -> Sweep:
        """What is due now, and when to look again."""
        timed_out, kills = [], set()
        next_at = None
        for attempt in self._by_token.values():
            due_at = attempt.due_at
            if due_at is None:
                continue
            if due_at > now:
                next_at = due_at if next_at is None else min(next_at, due_at)
            elif attempt.kill_at is None:
                timed_out.append(attempt)
            else:
                kills.add(attempt.replica_id)
        return Sweep(tuple(timed_out), frozenset(kills), next_at)


def report(attempt: Attempt, result: Result) -> wire.AttemptResult | None:
    """What the controller gets of a result: what we decided wins over what an ended attempt said of itself.

    An attempt that succeeded although we had it end has succeeded. None: the controller does not want its result.
    """
    ending = attempt.ending
    if ending is Ending.STALE:
        return None
    if result.outcome == Outcome.SUCCEEDED:
        return wire.AttemptResult(
            task_id=result.task_id,
            fencing_token=result.token,
            outcome=wire.OUTCOME_SUCCEEDED,
            output=result.output,
            duration_us=result.duration_us,
            replica_id=attempt.replica_id,
        )
    if ending is not None:
        return _ended(attempt, ending, result.duration_us)
    return wire.AttemptResult(
        task_id=result.task_id,
        fencing_token=result.token,
        outcome=_WIRE_OUTCOME[result.outcome],
        error_type=result.error_type,
        error_message=result.error_message,
        error_traceback=result.error_traceback,
        duration_us=result.duration_us,
        replica_id=attempt.replica_id,
    )


def report_gone(
    attempts: Sequence[Attempt], working_on: frozenset[int] | None, *, was_ours: bool, why: str
) -> list[wire.AttemptResult]:
    """What the controller gets of the attempts of a replica that is gone.

    working_on: what it worked on at its end; None: as far as we had heard. was_ours: we killed it, so that only
    attempts about which we had decided something end by that; the rest were bystanders.
    """
    results = []
    for attempt in attempts:
        started = attempt.started_at is not None if working_on is None else attempt.token in working_on
        if attempt.ending is Ending.STALE:
            continue
        if attempt.ending is not None:
            results.append(_ended(attempt, attempt.ending, 0))
        elif started and not was_ours:
            results.append(
                wire.AttemptResult(
                    task_id=attempt.task_id,
                    fencing_token=attempt.token,
                    outcome=wire.OUTCOME_FAILED,
                    error_type="ReplicaCrashed",
                    error_message=why,
                    replica_id=attempt.replica_id,
                )
            )
        else:
            results.append(interrupted(attempt.task_id, attempt.token, attempt.replica_id, why))
    return results


def interrupted(task_id: int, token: int, replica_id: int, why: str) -> wire.AttemptResult:
    """An attempt that ended by our doing; it costs the task nothing."""
    return wire.AttemptResult(
        task_id=task_id, fencing_token=token, outcome=wire.OUTCOME_INTERRUPTED, error_type="Interrupted",
        error_message=why, replica_id=replica_id,
    )  # fmt: skip


_WIRE_OUTCOME: dict[int, wire.Outcome] = {
    Outcome.SUCCEEDED: wire.OUTCOME_SUCCEEDED,
    Outcome.FAILED: wire.OUTCOME_FAILED,
    Outcome.CANCELLED: wire.OUTCOME_INTERRUPTED,  # cancelled, but not by us: it was the replica's own end
    Outcome.INTERRUPTED: wire.OUTCOME_INTERRUPTED,
}


def _ended(attempt: Attempt, ending: Ending, duration_us: int) -> wire.AttemptResult:
    kind, message = {
        Ending.TIMED_OUT: ("TimedOut", f"It ran longer than {attempt.timeout_s:g} s."),
        Ending.CANCELLED: ("Cancelled", "It was cancelled."),
        Ending.INTERRUPTED: ("Interrupted", "The farm stopped it; it costs no attempt."),
    }[ending]
    return wire.AttemptResult(
        task_id=attempt.task_id,
        fencing_token=attempt.token,
        outcome=ending.value,
        error_type=kind,
        error_message=message,
        duration_us=duration_us,
        replica_id=attempt.replica_id,
    )
