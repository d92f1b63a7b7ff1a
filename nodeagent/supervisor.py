"""The node's replicas and the attempts in their hands: does what the controller wants, tells what becomes of it.

Decisions are elsewhere and pure (`desired`, `attempts`, `restarts`); here they meet processes, sockets and time.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest
from agentfarm.wire import link_pb2 as wire
from nodeagent.attempts import Attempt, Attempts, Ending, interrupted, report, report_gone
from nodeagent.bundles import Bundles
from nodeagent.desired import Presence, plan_seats
from nodeagent.environments import Environment, Environments
from nodeagent.health import Health
from nodeagent.log import log
from nodeagent.outbox import Outbox
from nodeagent.outgoing import Outgoing
from nodeagent.relay import Relay
from nodeagent.replica import frames
from nodeagent.replica.frames import Kind, Run
from nodeagent.replica.launch import SLOTS_NAME, Launch
from nodeagent.replica.slots import read_slots
from nodeagent.replica_process import Exit
from nodeagent.seat import Seat, launch_of, living_process, recall
from nodeagent.zygotes import Zygotes

ADOPT_TIMEOUT_S: Final = 3.0
"""How long a new daemon waits for replicas it found to say what they run, before it says Hello without them."""
ZYGOTE_LINGER_S: Final = 30.0
SWEEP_MIN_S: Final = 0.01
KEPT_GATHER_S: Final = 0.005
"""What replicas may forget is told them a little later, many at once."""


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
    crashes: int = 0


class Supervisor:
    """`start` finds what an earlier daemon left; then the link gives orders."""

    def __init__(
        self,
        folder: Path,
        node: str,
        *,
        bundles: Bundles,
        environments: Environments,
        zygotes: Zygotes,
        outgoing: Outgoing,
        relay: Relay,
        variables: Mapping[str, str],
    ) -> None:
        self.seats: dict[int, Seat] = {}
        self.attempts = Attempts()
        self.counts = Counts()
        self.late_variables: dict[str, str] = {}
        """Variables for replicas started from now on, such as the address of the market data."""
        self.arriving: dict[str, asyncio.Event] = {}
        """Capabilities this node will have in a while. Who needs one is not started before: a replica that was here
        before the daemon began would else find no market data, since its variables are those of its start."""
        self.outbox: Outbox
        self._folder = folder
        self._node = node
        self._bundles = bundles
        self._environments = environments
        self._zygotes = zygotes
        self._outgoing = outgoing
        self._relay = relay
        self._variables = dict(variables)
        self._generation = 0
        self._takes_orders = True
        self._prepared: dict[int, tuple[Environment, Launch]] = {}
        self._awaited: dict[int, asyncio.Event] = {}
        self._kept: dict[int, list[int]] = {}
        self._kept_timer: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._health = Health(self)
        self._oom_kills = _oom_kills()

    async def start(self) -> None:
        """Find the zygotes and replicas of an earlier daemon, and hear what they run."""
        await self._zygotes.find()
        if self._folder.is_dir():
            for folder in sorted(self._folder.iterdir()):
                self._recall(folder)
        if self._awaited:
            waits = [asyncio.ensure_future(event.wait()) for event in self._awaited.values()]
            _, late = await asyncio.wait(waits, timeout=ADOPT_TIMEOUT_S)
            for wait in late:
                wait.cancel()
            log.info("replicas.found", replicas=len(waits) - len(late), silent=len(late), attempts=len(self.attempts))
        self._awaited.clear()
        self._health.start()

    async def stop(self, *, with_replicas: bool, at_once: bool = False) -> None:
        """Let go of everything; with the replicas: end them first, giving their attempts the time their specs say."""
        self._health.stop()
        if with_replicas:
            self._takes_orders = False
            for seat in self.seats.values():
                seat.stop(at_once=at_once)
            for seat in list(self.seats.values()):
                await seat.ended()
            await self._zygotes.stop()
        self._tell_kept()
        for handle in (self._sweep_timer, self._linger, self._kept_timer):
            if handle is not None:
                handle.cancel()
        for seat in self.seats.values():
            seat.detach()
        self._zygotes.disconnect()

    def hurry(self) -> None:
        """End at once what is being given time to end."""
        for seat in self.seats.values():
            seat.stop(at_once=True)

    # -------------------------------------------------------------- orders of the controller

    def new_stream(self) -> None:
        """A new stream has its own count of generations."""
        self._generation = 0

    def apply(self, desired: wire.Desired) -> None:
        """Make the node's replicas those of the list. Once they are being ended for good, no list starts another."""
        if desired.generation < self._generation or not self._takes_orders:
            return
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for wanted in plan.start:
            self._begin(wanted)
        for replica_id in plan.retire:
            self.seats[replica_id].retire()
        for replica_id in plan.stop:
            self._end_attempts_of(replica_id, Ending.INTERRUPTED)
            self.seats[replica_id].stop()
        for replica_id in plan.forget:
            self._forget(replica_id)
        for replica_id in plan.report_stopped:
            self._outgoing.report(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))
        if not plan.is_empty:
            self._tidy_later()

    def assign(self, assignments: Iterable[wire.Assignment]) -> None:
        """Hand attempts to their replicas; what cannot be handed over goes back at once."""
        runs: dict[int, list[Run]] = {}
        refused = []
        for item in assignments:
            token, replica_id = item.fencing_token, item.replica_id
            if token in self.attempts or token in self.outbox:
                continue
            batch = runs.get(replica_id)
            if batch is None:
                seat = self.seats.get(replica_id)
                if seat is None or not seat.takes_work or self.outbox.is_full:
                    refused.append(interrupted(item.task_id, token, "The replica takes no work now."))
                    continue
                batch = runs[replica_id] = []
            self.attempts.add(Attempt(token, item.task_id, replica_id, item.run_timeout_ms / 1000, item.exclusive))
            batch.append(Run(item.task_id, item.attempt, token, item.thread_id, item.input))
        for replica_id, batch in runs.items():
            self.counts.attempts_taken += len(batch)
            process = self.seats[replica_id].process
            assert process is not None  # takes_work
            process.send(frames.frame_runs(batch))
        if refused:
            self.counts.attempts_refused += len(refused)
            self._deliver(refused, 0)

    def cancel(self, tokens: Sequence[int], reason: wire.CancelReason) -> None:
        """End these attempts; how that is reported depends on the reason."""
        self.end_attempts(tokens, _ENDINGS.get(reason, Ending.CANCELLED))

    def end_attempts(self, tokens: Iterable[int], ending: Ending, *, within_s: float | None = None) -> None:
        """Ask the replicas to end them, and end the replicas that have not after the time their specs give."""
        now = asyncio.get_running_loop().time()
        cancels: dict[int, list[int]] = {}
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is None:
                continue
            seat = self.seats[attempt.replica_id]
            grace_s = seat.spec.shutdown_timeout_s
            kill_at = now + (grace_s if within_s is None else min(grace_s, within_s))
            if self.attempts.end([token], ending, kill_at):
                cancels.setdefault(attempt.replica_id, []).append(token)
                self._sweep_at(kill_at)
        for replica_id, named in cancels.items():
            process = self.seats[replica_id].process
            if process is not None:
                process.send(frames.frame_tokens(Kind.CANCEL, named))

    def stop_exclusive(self, within_s: float) -> None:
        """The controller may give these attempts to others soon: no process may work on them after `within_s`."""
        tokens = list(self.attempts.exclusive)
        if tokens:
            log.warning("attempts.stopped_exclusive", attempts=len(tokens), why="the controller was not heard in time")
            self.end_attempts(tokens, Ending.INTERRUPTED, within_s=within_s)

    def kept(self, pairs: Sequence[tuple[int, int]]) -> None:
        """(token, replica id) of results that the replicas need not hold any more."""
        for token, replica_id in pairs:
            self._kept.setdefault(replica_id, []).append(token)
        if self._kept and self._kept_timer is None:
            self._kept_timer = asyncio.get_running_loop().call_later(KEPT_GATHER_S, self._tell_kept)

    def _tell_kept(self) -> None:
        self._kept_timer = None
        told, self._kept = self._kept, {}
        for replica_id, tokens in told.items():
            seat = self.seats.get(replica_id)
            if seat is not None and seat.process is not None:
                seat.process.send(frames.frame_tokens(Kind.KEPT, tokens))

    # -------------------------------------------------------------- what seats need of us

    async def prepare(self, seat: Seat) -> None:
        """See `Surroundings`."""
        for name in seat.spec.capabilities:
            if (arrival := self.arriving.get(name)) is not None:
                await arrival.wait()
        bundle = await self._bundles.get(seat.wanted.bundle_digest)
        environment = await self._environments.get(bundle)
        launch = launch_of(seat, bundle, self._node, self._variables, self.late_variables)
        await self._zygotes.prepare(environment, launch, import_timeout_s=seat.spec.healthy_timeout_s)
        self._prepared[seat.id] = (environment, launch)
        seat.forked_from(environment.name, self._zygotes.name_for(environment, launch))

    async def fork(self, seat: Seat) -> tuple[int, int]:
        """See `Surroundings`."""
        environment, launch = self._prepared[seat.id]
        return await self._zygotes.fork(environment, launch, import_timeout_s=seat.spec.healthy_timeout_s)

    def changed(self, seat: Seat) -> None:
        """See `Surroundings`."""
        state = wire.ReplicaState.Name(seat.status.state).removeprefix("REPLICA_STATE_").lower()
        log.info("replica.state", replica=seat.name, replica_id=seat.id, state=state, reason=seat.status.reason)
        self._outgoing.report(seat.status)

    def reweighed(self, seat: Seat) -> None:
        """It needs another amount of memory than the controller was told."""
        self._outgoing.report(seat.status)

    def has_work(self, seat: Seat) -> bool:
        """See `Surroundings`."""
        return self.attempts.has_work(seat.id)

    def ran_out_of_memory(self, ended: Exit) -> bool:
        """See `Surroundings`."""
        before, self._oom_kills = self._oom_kills, _oom_kills()
        return ended.is_kill and not ended.was_ours and self._oom_kills > before

    def gone(self, seat: Seat, ended: Exit, why: str) -> None:
        """See `Surroundings`."""
        attempts = self.attempts.of(seat.id)
        if not ended.was_ours:
            self.counts.crashes += 1
        if attempts:
            was_ours = ended.was_ours or seat.presence is Presence.STOPPING
            working_on = read_slots(seat.folder / SLOTS_NAME)
            results = report_gone(attempts, working_on, was_ours=was_ours, why=f"The replica died: {why}")
            for attempt in attempts:
                self.attempts.remove(attempt.token)
            self._deliver(results, seat.id)

    def heard(self, seat: Seat, kind: int, body: bytes) -> None:
        """See `Surroundings`. Frames of kinds we do not know are left alone."""
        if kind == Kind.RESULTS:
            self._results(seat, body)
        elif kind == Kind.STARTED:
            self._started(frames.read_tokens(body))
        elif kind == Kind.OUTPUT:
            self._output(frames.read_output(body))
        elif kind == Kind.PONG:
            pong = frames.read_pong(body)
            self._started(pong.running)
            self._health.pong(seat, pong)
        elif kind == Kind.HELLO:
            self._hello(seat, json.loads(body))
        elif kind in (Kind.CHECKPOINT_PUT, Kind.CHECKPOINT_GET):
            self._relay.asked(seat, kind, body)

    # -------------------------------------------------------------- what replicas say

    def _hello(self, seat: Seat, said: Mapping[str, Any]) -> None:
        """A replica that is ready; after a restart of the daemon it says what it has in hand."""
        now = asyncio.get_running_loop().time()
        for token, task_id, is_started in said["held"]:
            if token not in self.attempts:
                timeout_s = seat.spec.run_timeout_s or 0.0
                self.attempts.add(Attempt(token, task_id, seat.id, timeout_s, seat.spec.exclusive))
            if is_started:
                _, due_at = self.attempts.start([token], now)
                self._sweep_at(due_at)
        seat.hello(int(said["ready_ms"]))
        if event := self._awaited.get(seat.id):
            event.set()

    def _started(self, tokens: Sequence[int]) -> None:
        fresh, due_at = self.attempts.start(tokens, asyncio.get_running_loop().time())
        if fresh:
            self._sweep_at(due_at)
            self._outgoing.started(fresh)

    def _output(self, piece: frames.Output) -> None:
        if piece.token in self.attempts:
            self._outgoing.output(
                wire.AttemptOutput(task_id=piece.task_id, fencing_token=piece.token, seq=piece.seq, data=piece.data)
            )

    def _results(self, seat: Seat, body: bytes) -> None:
        told, unheard = [], []
        for result in frames.read_results(body):
            attempt = self.attempts.remove(result.token)
            if attempt is None:
                if result.token in self.outbox:
                    continue  # told again because an earlier daemon may not have heard it; KEPT follows in time
                attempt = Attempt(result.token, result.task_id, seat.id, 0.0, is_exclusive=False)
            answer = report(attempt, result)
            if answer is None:
                unheard.append(result.token)
            else:
                told.append(answer)
        if told:
            self._deliver(told, seat.id)
        if unheard:
            self.kept([(token, seat.id) for token in unheard])
        if seat.presence is Presence.RETIRING:
            seat.settle()

    def _deliver(self, results: list[wire.AttemptResult], replica_id: int) -> None:
        for result in results:
            name = _COUNTED[result.outcome]
            setattr(self.counts, name, getattr(self.counts, name) + 1)
        self.outbox.keep(results, replica_id)
        self._outgoing.results(results)

    # -------------------------------------------------------------- seats

    def _begin(self, wanted: wire.DesiredReplica) -> None:
        folder = self._folder / str(wanted.replica_id)
        kept = wire.DesiredReplica()
        kept.CopyFrom(wanted)
        try:
            seat = Seat(kept, folder, self)
        except InvalidRequest as problem:
            self._outgoing.report(
                wire.ReplicaStatus(
                    replica_id=wanted.replica_id, state=wire.REPLICA_STATE_FAILED, reason="bundle_failed",
                    detail=str(problem),
                )
            )  # fmt: skip
            return
        shutil.rmtree(folder, ignore_errors=True)
        self.seats[seat.id] = seat
        self._outgoing.report(seat.status)
        seat.start()

    def _recall(self, folder: Path) -> None:
        seat = recall(folder, self)
        if seat is None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        self.seats[seat.id] = seat
        if seat.presence is Presence.ENDED:
            return
        process = living_process(seat, lambda kind, body: self.heard(seat, kind, body))
        if process is None:
            seat.start()
        else:
            self._awaited[seat.id] = asyncio.Event()
            seat.adopt(process)

    def _forget(self, replica_id: int) -> None:
        seat = self.seats.pop(replica_id)
        self._prepared.pop(replica_id, None)
        self.attempts.forget_replica(replica_id)
        shutil.rmtree(seat.folder, ignore_errors=True)

    def _end_attempts_of(self, replica_id: int, ending: Ending) -> None:
        seat = self.seats[replica_id]
        kill_at = asyncio.get_running_loop().time() + seat.spec.shutdown_timeout_s
        self.attempts.end([attempt.token for attempt in self.attempts.of(replica_id)], ending, kill_at)

    # -------------------------------------------------------------- time

    def _sweep_at(self, moment: float | None) -> None:
        if moment is None:
            return
        loop = asyncio.get_running_loop()
        if self._sweep_timer is not None:
            if self._sweep_timer.when() <= moment:
                return
            self._sweep_timer.cancel()
        self._sweep_timer = loop.call_at(max(moment, loop.time() + SWEEP_MIN_S), self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        sweep = self.attempts.sweep(asyncio.get_running_loop().time())
        for replica_id in sweep.replicas_to_kill:
            seat = self.seats[replica_id]
            log.warning("replica.killed", replica=seat.name, why="an attempt did not end when it was told to")
            for attempt in self.attempts.of(replica_id):
                if attempt.kill_at is not None:
                    attempt.kill_at += (
                        seat.spec.shutdown_timeout_s + 1.0
                    )  # not again before this one has had its effect
            seat.kill()
        if sweep.timed_out:
            self.end_attempts([attempt.token for attempt in sweep.timed_out], Ending.TIMED_OUT)
        self._sweep_at(sweep.next_at)

    def _tidy_later(self) -> None:
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(ZYGOTE_LINGER_S, self._tidy_now)

    def _tidy_now(self) -> None:
        self._linger = None
        task = asyncio.get_running_loop().create_task(self._tidy())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _tidy(self) -> None:
        """Forget what no seat needs any more."""
        living = [seat for seat in self.seats.values() if seat.presence is not Presence.ENDED]
        if all(seat.zygote for seat in living):
            await self._zygotes.retire({seat.zygote for seat in living})
            self._environments.prune({seat.environment for seat in living})
        else:
            self._tidy_later()  # still preparing: we do not know what they need
        self._bundles.prune([seat.wanted.bundle_digest for seat in living])


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


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
