"""From a seat that needs a process to one that was forked: bundle, environment, zygote, launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nodeagent.core.seat import Seat
from nodeagent.replicas.bundles import Bundles
from nodeagent.replicas.environments import Environment, Environments
from nodeagent.replicas.zygotes import Zygotes
from nodeagent.runner.protocol.launch import Launch
from nodeagent.services.registry import Services


class Launcher:
    """Raises StartFailed or LinkAway where a replica cannot be started."""

    def __init__(
        self,
        node: str,
        *,
        bundles: Bundles,
        environments: Environments,
        zygotes: Zygotes,
        services: Services,
        variables: Mapping[str, str],
    ) -> None:
        self._node = node
        self._bundles = bundles
        self._environments = environments
        self._zygotes = zygotes
        self._services = services
        self._variables = dict(variables)
        self._prepared: dict[int, tuple[Environment, Launch] | None] = {}
        """By replica; None while it is being prepared. One that is forgotten meanwhile does not come back."""

    async def prepare(self, seat: Seat, folder: Path) -> None:
        """Have everything here that its fork needs. May take long."""
        self._prepared[seat.id] = None
        await self._services.arrival(seat.spec.capabilities)
        bundle = await self._bundles.get(seat.desired.bundle_digest)
        environment = await self._environments.get(bundle)
        launch = self._launch(seat, folder, bundle)
        await self._zygotes.prepare(environment, launch, import_timeout_s=seat.spec.healthy_timeout_s)
        if seat.id in self._prepared:
            self._prepared[seat.id] = (environment, launch)
        seat.forked_from(environment.name, self._zygotes.name_for(environment, launch))

    async def fork(self, seat: Seat) -> tuple[int, int]:
        """The process of a prepared seat: pid and start ticks. Takes moments."""
        prepared = self._prepared[seat.id]
        assert prepared is not None
        environment, launch = prepared
        return await self._zygotes.fork(environment, launch, import_timeout_s=seat.spec.healthy_timeout_s)

    def forget(self, replica_id: int) -> None:
        """The replica is needed no more."""
        self._prepared.pop(replica_id, None)

    async def tidy(self, living: Sequence[Seat]) -> bool:
        """Remove what no seat needs. False: some still prepare, so it is not known yet what they need."""
        is_known = all(seat.zygote for seat in living)
        if is_known:
            await self._zygotes.retire({seat.zygote for seat in living})
            self._environments.prune({seat.environment for seat in living})
        self._bundles.prune([seat.desired.bundle_digest for seat in living])
        return is_known

    def _launch(self, seat: Seat, folder: Path, bundle: Path) -> Launch:
        return Launch(
            replica_id=seat.id,
            deployment=seat.desired.deployment,
            seat=seat.desired.seat,
            version=seat.desired.version,
            node=self._node,
            folder=str(folder),
            bundle=str(bundle),
            entry=seat.spec.entry,
            concurrency=seat.spec.concurrency,
            memory_mib=seat.spec.memory_mib,
            is_exclusive=seat.spec.exclusive,
            environment={**self._variables, **seat.spec.environment},
            variables={
                "AGENTFARM_AGENT": seat.desired.deployment,
                "AGENTFARM_REPLICA": seat.name,
                "AGENTFARM_NODE": self._node,
                **self._services.variables,
            },
        )
