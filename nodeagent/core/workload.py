"""The attempts in the hands of this node's replicas: handed over, watched, ended, and reported.

Pure: clock, disk and replicas are arguments. What is reported of an attempt is decided in `attempts`; here its way is
decided: which replica gets it, what follows from each frame, order and moment, and what goes to the outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentfarm.limits import ID_MAX
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Attempt, Attempts, Ending, interrupted, report, report_gone
from nodeagent.core.clock import Clock, Timer
from nodeagent.core.desired import Presence
from nodeagent.core.outbox import Disk, Outbox
from nodeagent.core.outgoing import Outgoing
from nodeagent.runner.protocol.frames import (
    Kind,
    Output,
    Result,
    Run,
    frame_lease,
    frame_runs,
    frame_tokens,
    read_results,
)

SWEEP_MIN_S: Final = 0.01
KEPT_GATHER_S: Final = 0.05
"""Replicas hear a little later what they may forget: many results at once."""


@dataclass(slots=True)
class Counts:
    """What has happened since the daemon started."""

    attempts_taken: int = 0
    attempts_refused: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    interrupted: int = 0
    frames_refused: int = 0
    """Results, starts and pieces of attempts that the replica which spoke of them does not hold."""
    crashes: int = 0


class Terms(Protocol):
    """What the spec of a replica says of its attempts."""

    @property
    def run_timeout_s(self) -> float | None: ...
    @property
    def shutdown_timeout_s(self) -> float: ...
    @property
    def exclusive(self) -> bool: ...


class Process(Protocol):
    """The process of a replica."""

    def send(self, data: bytes, /) -> None: ...


class Holder(Protocol):
    """A replica, as its attempts see it."""

    @property
    def id(self) -> int: ...
    @property
    def spec(self) -> Terms: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def process(self) -> Process | None: ...
    @property
    def takes_work(self) -> bool: ...
    def settle(self) -> None:
        """An attempt of it has ended."""

    def kill(self, why: str, /) -> None: ...


class Workload:
    """`seats` is the supervisor's, read here."""

    def __init__(self, clock: Clock, seats: Mapping[int, Holder], outgoing: Outgoing, disk: Disk) -> None:
        self.attempts = Attempts()
        self.counts = Counts()
        self.outbox = Outbox(clock, disk, self.release)
        self._clock = clock
        self._seats = seats
        self._outgoing = outgoing
        self._releasable: dict[int, list[int]] = {}
        self._lease_until_s = 0.0
        self._oldest_given = ID_MAX + 1
        """The first token that this daemon was given: tokens only grow, so those of earlier daemons are below it."""
        self._disputed: set[int] = set()
        """Tokens that two replicas say to hold since an earlier daemon. The controller knows whose they are."""
        self._release_timer: Timer | None = None
        self._sweep_timer: Timer | None = None

    def stop(self) -> None:
        """Tell replicas what they may forget, and watch nothing any more."""
        self._send_released()
        for timer in (self._release_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()

    # -------------------------------------------------------------- orders of the controller

    def assign(self, assignments: Iterable[wire.Assignment]) -> None:
        """Hand attempts to their replicas; what cannot be handed over goes back at once."""
        runs: dict[int, list[Run]] = {}
        refused = []
        for item in assignments:
            token, replica_id = item.fencing_token, item.replica_id
            self._oldest_given = min(self._oldest_given, token)
            if token in self.attempts or self.outbox.holds(token, replica_id):
                continue
            batch = runs.get(replica_id)
            if batch is None:
                seat = self._seats.get(replica_id)
                if seat is None or not seat.takes_work or self.outbox.is_full or self._is_too_late(item):
                    refused.append(interrupted(item.task_id, token, replica_id, "The replica takes no work now."))
                    continue
                batch = runs[replica_id] = []
            self.attempts.add(Attempt(token, item.task_id, replica_id, item.run_timeout_ms / 1000, item.exclusive))
            batch.append(Run(item.task_id, item.attempt, token, item.thread_id, item.input))
        for replica_id, batch in runs.items():
            self.counts.attempts_taken += len(batch)
            process = self._seats[replica_id].process
            assert process is not None  # takes_work
            if self._seats[replica_id].spec.exclusive:  # a replica may be younger than the last renewal
                process.send(frame_lease(self._lease_until_s))
            process.send(frame_runs(batch))
        if refused:
            self.counts.attempts_refused += len(refused)
            self._deliver(refused, 0)

    def _is_too_late(self, item: wire.Assignment) -> bool:
        """An order that waited in a socket while we were stopped: the controller may have given it to others."""
        return item.exclusive and self._clock.time() >= self._lease_until_s

    def lease_renewed(self, until_s: float) -> None:
        """Exclusive attempts may run until then. Their replicas hear it, because they must end also without us."""
        self._lease_until_s = until_s
        for seat in self._seats.values():
            if seat.spec.exclusive and seat.process is not None:
                seat.process.send(frame_lease(until_s))

    def cancel(self, tokens: Sequence[int], reason: wire.CancelReason) -> None:
        """End these attempts; how that is reported depends on the reason."""
        self.end_attempts(tokens, _ENDINGS.get(reason, Ending.CANCELLED))

    def recall(self, tokens: Iterable[int]) -> None:
        """Ask the replicas to give back those of these that they have not begun. They know best which these are."""
        named: dict[int, list[int]] = {}
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is not None and attempt.is_waiting:
                named.setdefault(attempt.replica_id, []).append(token)
        for replica_id, waiting in named.items():
            process = self._seats[replica_id].process
            if process is not None:
                process.send(frame_tokens(Kind.RECALL, waiting))

    def end_attempts(self, tokens: Iterable[int], ending: Ending, *, within_s: float | None = None) -> None:
        """Ask the replicas to end them, and end the replicas that have not after the time their specs give."""
        now = self._clock.time()
        cancels: dict[int, list[int]] = {}
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is None:
                continue
            seat = self._seats[attempt.replica_id]
            grace_s = seat.spec.shutdown_timeout_s
            kill_at = now + (grace_s if within_s is None else min(grace_s, within_s))
            if self.attempts.end([token], ending, kill_at):
                cancels.setdefault(attempt.replica_id, []).append(token)
                self._sweep_at(kill_at)
        for replica_id, named in cancels.items():
            process = self._seats[replica_id].process
            if process is not None:
                process.send(frame_tokens(Kind.CANCEL, named))

    def end_all_of(self, replica_id: int, ending: Ending) -> None:
        """Decide that all attempts of a replica end. The replica hears of it by other means."""
        seat = self._seats[replica_id]
        kill_at = self._clock.time() + seat.spec.shutdown_timeout_s
        self.attempts.end([attempt.token for attempt in self.attempts.of(replica_id)], ending, kill_at)

    def stop_exclusive(self, within_s: float) -> int:
        """The controller may give exclusive attempts to others soon: no process may work on them after `within_s`.

        Returns how many there are.
        """
        tokens = list(self.attempts.exclusive)
        if tokens:
            self.end_attempts(tokens, Ending.INTERRUPTED, within_s=within_s)
        return len(tokens)

    def release(self, pairs: Sequence[tuple[int, int]]) -> None:
        """(token, replica id) of results that the replicas need not hold any more."""
        for token, replica_id in pairs:
            self._releasable.setdefault(replica_id, []).append(token)
        if self._releasable and self._release_timer is None:
            self._release_timer = self._clock.call_at(self._clock.time() + KEPT_GATHER_S, self._send_released)

    def _send_released(self) -> None:
        self._release_timer = None
        released, self._releasable = self._releasable, {}
        for replica_id, tokens in released.items():
            seat = self._seats.get(replica_id)
            if seat is not None and seat.process is not None:
                seat.process.send(frame_tokens(Kind.KEPT, tokens))

    # -------------------------------------------------------------- what replicas say

    def adopt(self, seat: Holder, held: Iterable[tuple[int, int, bool]]) -> None:
        """What a replica says it has in hand, as (token, task, is started); news after a restart of the daemon."""
        now = self._clock.time()
        for token, task_id, is_started in held:
            attempt = self.attempts.get(token)
            if attempt is not None and attempt.replica_id != seat.id:
                self._dispute(token)
                continue
            if attempt is None:
                if not self._may_be_older(token, task_id):
                    self.counts.frames_refused += 1
                    continue
                timeout_s = seat.spec.run_timeout_s or 0.0
                self.attempts.add(Attempt(token, task_id, seat.id, timeout_s, seat.spec.exclusive))
            if is_started:
                _, due_at = self.attempts.start([token], now, seat.id)
                self._sweep_at(due_at)

    def _dispute(self, token: int) -> None:
        self.counts.frames_refused += 1
        if token < self._oldest_given:
            self._disputed.add(token)

    def _may_be_older(self, token: int, task_id: int) -> bool:
        """Whether a replica may hold this since an earlier daemon, of which we know nothing."""
        return 0 < token < self._oldest_given and 0 < task_id <= ID_MAX

    def started(self, seat: Holder, tokens: Sequence[int]) -> None:
        """A replica works on these now. Those that we know to run already are left out."""
        fresh, due_at = self.attempts.start(tokens, self._clock.time(), seat.id)
        if fresh:
            self._sweep_at(due_at)
            self._outgoing.started(fresh)

    def output(self, seat: Holder, piece: Output) -> None:
        """A piece of the output of an attempt that the replica holds."""
        attempt = self.attempts.get(piece.token)
        if attempt is not None and attempt.replica_id == seat.id and attempt.task_id == piece.task_id:
            self._outgoing.output(
                wire.AttemptOutput(task_id=piece.task_id, fencing_token=piece.token, seq=piece.seq, data=piece.data)
            )

    def results(self, seat: Holder, body: bytes) -> None:
        """A RESULTS frame: into the outbox and onto the stream."""
        reports, doubted, stale = [], [], []
        for result in read_results(body):
            attempt = self._own(seat, result)
            is_held = attempt is not None
            if attempt is None:
                if self.outbox.holds(result.token, seat.id):
                    continue  # sent again because an earlier daemon may not have heard it; KEPT follows in time
                if not self._may_be_told(result):
                    self.counts.frames_refused += 1
                    continue
                attempt = Attempt(result.token, result.task_id, seat.id, 0.0, is_exclusive=False)
            answer = report(attempt, result)
            if answer is None:
                stale.append(result.token)
            elif not is_held and result.token in self.outbox:  # of another replica, whose result stays
                doubted.append(answer)
            else:
                reports.append(answer)
        if reports:
            self._deliver(reports, seat.id)
        if doubted:
            self._outgoing.results(doubted)
        if stale:
            self.release([(token, seat.id) for token in stale])
        if seat.presence is Presence.RETIRING:
            seat.settle()

    def _own(self, seat: Holder, result: Result) -> Attempt | None:
        """The attempt that a result ends, if its replica holds it."""
        attempt = self.attempts.get(result.token)
        if attempt is None or attempt.replica_id != seat.id or attempt.task_id != result.task_id:
            return None
        return self.attempts.remove(result.token)

    def _may_be_told(self, result: Result) -> bool:
        """Whether the controller must say whose a result is, because it may be of an earlier daemon's time."""
        attempt = self.attempts.get(result.token)
        if attempt is not None:
            return result.token in self._disputed and attempt.task_id == result.task_id
        return self._may_be_older(result.token, result.task_id)

    def _deliver(self, results: list[wire.AttemptResult], replica_id: int) -> None:
        for result in results:
            name = _COUNTED[result.outcome]
            setattr(self.counts, name, getattr(self.counts, name) + 1)
        self.outbox.keep(results, replica_id)
        self._outgoing.results(results)

    def gone(self, seat: Holder, working_on: frozenset[int] | None, *, was_ours: bool, why: str) -> None:
        """The process of a replica is gone, and with it what it had in hand.

        working_on: what it worked on at its end, None if that cannot be known. was_ours: we killed it.
        """
        if not was_ours:
            self.counts.crashes += 1
        attempts = self.attempts.of(seat.id)
        if attempts:
            was_ours = was_ours or seat.presence is Presence.STOPPING
            results = report_gone(attempts, working_on, was_ours=was_ours, why=f"The replica died: {why}")
            for attempt in attempts:
                self.attempts.remove(attempt.token)
            self._deliver(results, seat.id)

    # -------------------------------------------------------------- time

    def _sweep_at(self, moment: float | None) -> None:
        if moment is None:
            return
        if self._sweep_timer is not None:
            if self._sweep_timer.when() <= moment:
                return
            self._sweep_timer.cancel()
        self._sweep_timer = self._clock.call_at(max(moment, self._clock.time() + SWEEP_MIN_S), self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        sweep = self.attempts.sweep(self._clock.time())
        for replica_id in sweep.replicas_to_kill:
            seat = self._seats[replica_id]
            for attempt in self.attempts.of(replica_id):
                if attempt.kill_at is not None:  # not again before this one has had its effect
                    attempt.kill_at += seat.spec.shutdown_timeout_s + 1.0
            seat.kill("an attempt did not end when it was told to")
        if sweep.timed_out:
            self.end_attempts([attempt.token for attempt in sweep.timed_out], Ending.TIMED_OUT)
        self._sweep_at(sweep.next_at)


_ENDINGS: Final = {
    wire.CANCEL_REASON_REQUESTED: Ending.CANCELLED,
    wire.CANCEL_REASON_STALE: Ending.STALE,
    wire.CANCEL_REASON_MOVED: Ending.INTERRUPTED,
}
_COUNTED: Final = {
    wire.OUTCOME_SUCCEEDED: "succeeded",
    wire.OUTCOME_FAILED: "failed",
    wire.OUTCOME_TIMED_OUT: "timed_out",
    wire.OUTCOME_CANCELLED: "cancelled",
    wire.OUTCOME_INTERRUPTED: "interrupted",
}
