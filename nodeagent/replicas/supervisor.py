"""The node's replicas: makes them what the controller wants, and tells what becomes of them.

What to do is decided elsewhere and purely (`desired`, `restarts`); here it meets processes, folders and time. The
attempts in replicas' hands are the workload's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest
from agentfarm.service import Service
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Ending
from nodeagent.core.desired import Presence, plan_seats
from nodeagent.core.outbox import Disk
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.workload import Workload
from nodeagent.machine.logging import log
from nodeagent.replicas.adoption import Adoption
from nodeagent.replicas.bundles import Bundles
from nodeagent.replicas.environments import Environment, Environments
from nodeagent.replicas.health import Health
from nodeagent.replicas.process import Exit
from nodeagent.replicas.relay import Relay
from nodeagent.replicas.seat import Seat, launch_of
from nodeagent.replicas.zygotes import Zygotes
from nodeagent.runner.replica import frames
from nodeagent.runner.replica.frames import Kind
from nodeagent.runner.replica.launch import SLOTS_NAME, Launch
from nodeagent.runner.replica.slots import read_slots
from nodeagent.services.registry import Services

ZYGOTE_LINGER_S: Final = 30.0


class Supervisor(Service):
    """`start` finds what an earlier daemon left (see `adoption`); then the link gives orders."""

    def __init__(
        self,
        folder: Path,
        node: str,
        *,
        bundles: Bundles,
        environments: Environments,
        zygotes: Zygotes,
        outgoing: Outgoing,
        storage: Disk,
        relay: Relay,
        services: Services,
        variables: Mapping[str, str],
    ) -> None:
        super().__init__("supervisor")
        self.seats: dict[int, Seat] = {}
        self.workload = Workload(asyncio.get_running_loop(), self.seats, outgoing, storage)
        self._folder = folder
        self._node = node
        self._bundles = bundles
        self._environments = environments
        self._zygotes = zygotes
        self._outgoing = outgoing
        self._relay = relay
        self._services = services
        self._variables = dict(variables)
        self._generation = 0
        self._takes_orders = True
        self._prepared: dict[int, tuple[Environment, Launch]] = {}
        self._adoption = Adoption(self)
        self._linger: asyncio.TimerHandle | None = None
        self._ends_replicas = self._is_hurried = False
        self._health = Health(self)
        self.own(self._health)
        self._oom_kills = _oom_kills()

    async def _begin(self) -> None:
        """Find the zygotes and replicas of an earlier daemon, and hear what they run."""
        await self._zygotes.find()
        await self._adoption.adopt(self._folder, self.seats)
        await self._health.start()

    async def stop(self, *, with_replicas: bool = False, at_once: bool = False) -> None:
        """Let go of everything; with the replicas: end them first, giving their attempts the time their specs say."""
        self._ends_replicas, self._is_hurried = with_replicas, at_once
        await super().stop()

    async def _finish(self) -> None:
        await self._health.stop()
        if self._ends_replicas:
            self._takes_orders = False
            for seat in self.seats.values():
                seat.stop(at_once=self._is_hurried)
            for seat in list(self.seats.values()):
                await seat.ended()
            await self._zygotes.stop()
        self.workload.stop()
        if self._linger is not None:
            self._linger.cancel()
        await self._tasks.end()
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

    def apply(self, desired: wire.Desired) -> bool:
        """Make the node's replicas those of the list. Once they are being ended for good, no list starts another.

        Returns whether the list counts: not when it is older than one that was obeyed.
        """
        if desired.generation < self._generation or not self._takes_orders:
            return False
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for wanted in plan.start:
            self._take_seat(wanted)
        for replica_id in plan.retire:
            self.seats[replica_id].retire()
        for replica_id in plan.stop:
            self.workload.end_all_of(replica_id, Ending.INTERRUPTED)
            self.seats[replica_id].stop()
        for replica_id in plan.forget:
            self._forget(replica_id)
        for replica_id in plan.report_stopped:
            self._outgoing.report(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))
        if not plan.is_empty:
            self._tidy_later()
        return True

    def lease_renewed(self, until_s: float) -> None:
        """Exclusive attempts may run until then. Told to all who can end them, for each of the others may be dead."""
        self.workload.lease_renewed(until_s)
        is_wanted = any(seat.spec.exclusive for seat in self.seats.values())
        self._zygotes.lease_renewed(until_s, is_wanted=is_wanted)

    # -------------------------------------------------------------- what seats need of us

    async def prepare(self, seat: Seat) -> None:
        """See `Surroundings`."""
        await self._services.arrival(seat.spec.capabilities)
        bundle = await self._bundles.get(seat.wanted.bundle_digest)
        environment = await self._environments.get(bundle)
        launch = launch_of(seat, bundle, self._node, self._variables, self._services.variables)
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
        return self.workload.attempts.has_work(seat.id)

    def ran_out_of_memory(self, ended: Exit) -> bool:
        """See `Surroundings`."""
        before, self._oom_kills = self._oom_kills, _oom_kills()
        return ended.is_kill and not ended.was_ours and self._oom_kills > before

    def gone(self, seat: Seat, ended: Exit, why: str) -> None:
        """See `Surroundings`."""
        working_on = read_slots(seat.folder / SLOTS_NAME) if self.has_work(seat) else None
        self.workload.gone(seat, working_on, was_ours=ended.was_ours, why=why)

    def heard(self, seat: Seat, kind: int, body: bytes) -> None:
        """See `Surroundings`. Frames of kinds we do not know are left alone."""
        if kind == Kind.RESULTS:
            self.workload.results(seat, body)
        elif kind == Kind.STARTED:
            self.workload.started(frames.read_tokens(body))
        elif kind == Kind.OUTPUT:
            self.workload.output(frames.read_output(body))
        elif kind == Kind.PONG:
            pong = frames.read_pong(body)
            self.workload.started(pong.running)
            self._health.pong(seat, pong)
        elif kind == Kind.HELLO:
            self._hello(seat, json.loads(body))
        elif kind in (Kind.AGENT_CALL, Kind.CHECKPOINT_PUT, Kind.CHECKPOINT_GET):
            self._relay.begin(seat, kind, body)

    # -------------------------------------------------------------- seats

    def _hello(self, seat: Seat, said: Mapping[str, Any]) -> None:
        """A replica is ready; after a restart of the daemon it says what it has in hand."""
        self.workload.found(seat, said["held"])
        seat.hello(int(said["ready_ms"]))
        self._adoption.hello(seat.id)

    def _take_seat(self, wanted: wire.DesiredReplica) -> None:
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

    def _forget(self, replica_id: int) -> None:
        seat = self.seats.pop(replica_id)
        self._prepared.pop(replica_id, None)
        self.workload.attempts.forget_replica(replica_id)
        shutil.rmtree(seat.folder, ignore_errors=True)

    # -------------------------------------------------------------- time

    def _tidy_later(self) -> None:
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(ZYGOTE_LINGER_S, self._tidy_now)

    def _tidy_now(self) -> None:
        self._linger = None
        self._tasks.errand(self._tidy(), name="tidy")

    async def _tidy(self) -> None:
        """Forget what no seat needs any more."""
        living = [seat for seat in self.seats.values() if seat.presence is not Presence.ENDED]
        if all(seat.zygote for seat in living):
            await self._zygotes.retire({seat.zygote for seat in living})
            self._environments.prune({seat.environment for seat in living})
        else:
            self._tidy_later()  # still preparing: we do not know what they need
        self._bundles.prune([seat.wanted.bundle_digest for seat in living])


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
