"""What a launcher keeps of the replicas that it prepares: nothing of one that is removed meanwhile."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import Any, cast

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.seat import Seat
from nodeagent.replicas.launcher import Launcher
from nodeagent.services.registry import Services


class Environment:
    name = "env-one"


class Parts:
    """Bundles, environments, zygotes and the seat's machine. The environment is there once the test says so."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.environment: weakref.ref[Environment]

    async def get(self, wanted: object) -> object:
        if wanted == "sha256:1":
            return Path("bundle")
        await self.may_end.wait()
        environment = Environment()
        self.environment = weakref.ref(environment)
        return environment

    async def prepare(self, *_: object, import_timeout_s: float) -> None:
        del import_timeout_s

    def name_for(self, *_: object) -> str:
        return "zygote"

    def remember(self, seat: Seat) -> None:
        del seat

    async def fork(self, *_: object, import_timeout_s: float) -> tuple[int, int]:
        del import_timeout_s
        return 7, 70


def launcher_of(parts: Parts) -> Launcher:
    anything = cast("Any", parts)
    return Launcher("n1", bundles=anything, environments=anything, zygotes=anything, services=Services([]),
                    variables={})  # fmt: skip


def seat_of(parts: Parts) -> Seat:
    machine, nothing = cast("Any", parts), cast("Any", None)
    wanted = wire.DesiredReplica(replica_id=1, deployment="a", bundle_digest="sha256:1", spec_json='{"name": "a"}')
    return Seat(wanted, nothing, machine, nothing)


async def test_a_replica_removed_while_it_is_prepared_leaves_nothing(tmp_path: Path) -> None:
    parts = Parts()
    launcher = launcher_of(parts)
    preparing = asyncio.create_task(launcher.prepare(seat_of(parts), tmp_path))
    await asyncio.sleep(0)
    launcher.forget(1)
    parts.may_end.set()
    await preparing
    del preparing
    assert parts.environment() is None, "the launcher keeps the environment of a replica that is no more"


async def test_a_prepared_replica_is_forked(tmp_path: Path) -> None:
    parts = Parts()
    parts.may_end.set()
    launcher, replica = launcher_of(parts), seat_of(parts)
    await launcher.prepare(replica, tmp_path)
    assert await launcher.fork(replica) == (7, 70)
