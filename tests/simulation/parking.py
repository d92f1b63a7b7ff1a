"""Work that suddenly takes long: histories full of it, and what must hold of the work that waits behind it.

The checks keep their own books: what began is what the replica processes say, when something ended is when it was
committed, and whether a path is clear is read from the network.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.transition import EndedAttempt, Transition
from tests.simulation.laws import Broken

if TYPE_CHECKING:
    from controller.core.model import FarmState, Replica
    from tests.simulation.agents import Execution, ReplicaProcess
    from tests.simulation.controllers import Controller
    from tests.simulation.machines import Machine
    from tests.simulation.world import World

SHARE: Final = 0.15  # of all histories
GIVEN_BACK: Final = "GivenBack"
PARKED_MAX_S: Final = 3.5
"""How long a task may wait unstarted behind others beside a free hand, with every path clear: the limit of a second, a
look each quarter of a second, the same again where the first request fell on the edge of a fault, and slack."""
TURN_GAP_MAX_S: Final = 0.6
OPEN_AGAIN_S: Final = 0.06
"""A replica whose attempt ended counts as quick for the horizon of prefetching, 50 ms."""

Wish = tuple[float, str, tuple[Any, ...]]


def is_jumpy(seed: int) -> bool:
    """Whether the history of a seed is about work whose length jumps. Drawn apart: it moves no other history."""
    return random.Random(f"{seed}:jumps").random() < SHARE


def jumpy_work(chance: random.Random, deployments: int, length_s: float) -> list[Wish]:
    """Bursts of very short work; some have one task in their middle that takes long."""
    wishes: list[Wish] = [(1.0 + 0.05 * it, "do_submit", _short(it, 12)) for it in range(deployments)]
    moment = 1.5
    while (moment := moment + chance.expovariate(0.8)) < length_s:
        number = chance.randrange(1 << 16)
        if chance.random() < 0.6:
            wishes.append((moment, "do_submit", _long(chance, number)))
        wishes.append((moment + 0.004, "do_submit", _short(number, chance.choice((2, 6, 12)))))
        draw = chance.random()
        if draw < 0.15:
            wishes.append((moment + chance.random(), "do_cancel", (number,)))
        elif draw < 0.2:
            wishes.append((moment, "do_drain", (number, chance.choice((2.0, 20.0)))))
        elif draw < 0.3:
            wishes.append((moment, "do_uncordon", (number,)))
    return wishes


def _short(number: int, count: int) -> tuple[Any, ...]:
    return number, count, None, (("ok", 0.002, False),), (), True


def _long(chance: random.Random, number: int) -> tuple[Any, ...]:
    """Mostly one that does not succeed: of a success the core learns to expect the next."""
    does = chance.choice(("fail", "fail", "hang", "reject", "ok"))
    options = (("max_attempts", 1), ("run_timeout_s", 15.0))
    return number, 1, None, ((does, chance.choice((5.0, 8.0, 12.0)), False),), options, True


class _Given(NamedTuple):
    """A task as it was given back: by which replica, under which leader, and what ran there at that moment."""

    replica: int
    epoch: int
    running: frozenset[int]


class ParkingChecks:
    """Of one history; `executions` and `holders` are the checkers' books."""

    def __init__(
        self, world: World, machines: dict[str, Machine], executions: dict[int, Execution], holders: dict[int, int]
    ) -> None:
        self._world = world
        self._machines = machines
        self._executions = executions
        self._holders = holders
        self._given: dict[int, _Given] = {}  # task -> its last giving back
        self._ended_at: dict[int, float] = {}  # replica -> when the end of an attempt of it was last committed
        self._since: dict[tuple[int, int, int], float] = {}  # epoch, session, token -> parked beside a free hand since
        self._looked_at: dict[int, float] = {}  # epoch -> last look
        self.given_back = 0

    # -------------------------------------------------------------- what is committed

    def attempt_ended(self, ended: EndedAttempt, epoch: int) -> None:
        """An attempt that was not its task's last."""
        if ended.error_type != GIVEN_BACK:
            self.progressed(ended.replica)
            return
        self.given_back += 1
        if ended.token in self._executions:
            raise Broken("what began is not given back", f"{self._executions[ended.token]}")
        process = self._process(ended.node, ended.replica)
        running = process.working_on if process is not None else frozenset()
        self._given[ended.task] = _Given(ended.replica or 0, epoch, running)

    def progressed(self, replica: int | None) -> None:
        """The end of an attempt of a replica is committed."""
        self._ended_at[replica or 0] = self._world.now

    def _process(self, node: str | None, replica: int | None) -> ReplicaProcess | None:
        machine = self._machines.get(node or "")
        return machine.processes.get(replica or 0) if machine is not None else None

    # -------------------------------------------------------------- what is decided

    def decided(self, controller: Controller, transition: Transition) -> None:
        """What was given back does not go back behind the work that it was taken from."""
        state = controller.state
        assert state is not None
        ends = {it.task.replica for it in transition.finished} | {
            it.replica for it in transition.changes.ended_attempts if it.error_type != GIVEN_BACK
        }
        for batch in transition.changes.lease_batches:
            for task_id, replica_id in zip(batch.tasks, batch.replicas, strict=True):
                given = self._given.get(task_id)
                if given is None or given.replica != replica_id or given.epoch != state.epoch or replica_id in ends:
                    continue
                if self._is_as_it_was(state.replicas[replica_id], state, given):
                    raise Broken(
                        "what is given back does not return behind the same work", f"task {task_id} at {replica_id}"
                    )

    def _is_as_it_was(self, replica: Replica, state: FarmState, given: _Given) -> bool:
        if self._world.now - self._ended_at.get(replica.id, 0.0) < OPEN_AGAIN_S:
            return False
        process = self._process(replica.node, replica.id)
        held = {self._executions[token].task_id: token for token in given.running}
        return (
            process is not None
            and len(given.running) >= _concurrency(state, replica)
            and given.running <= process.working_on
            and all(self._holders.get(task_id) == token for task_id, token in held.items())
        )

    # -------------------------------------------------------------- what is so for a while

    def published(self, controller: Controller) -> None:
        """No task waits unstarted behind others for long while another replica has nothing to do."""
        state, now = controller.state, self._world.now
        assert state is not None
        if now - self._looked_at.get(state.epoch, now) > TURN_GAP_MAX_S:
            self._since.clear()  # the controller, or its journal, stood still
        self._looked_at[state.epoch] = now
        found = {
            (state.epoch, state.nodes[replica.node].session, token): replica
            for deployment in state.deployments.values()
            if not deployment.queued and not deployment.is_removed
            if any(_is_free(state, state.replicas[it]) for it in deployment.replicas)
            for replica in (state.replicas[it] for it in deployment.replicas)
            if replica.node is not None and self._is_reached(controller, replica)
            for token in self._parked(state, replica)
        }
        self._since = {key: self._since.get(key, now) for key in found}
        for key, since in self._since.items():
            if now - since > PARKED_MAX_S:
                raise Broken("nothing waits for long behind others beside a free hand", f"{key[2]} at {found[key]}")

    def _parked(self, state: FarmState, replica: Replica) -> list[int]:
        if len(replica.tokens) <= _concurrency(state, replica):
            return []
        tasks = [(token, state.tasks[state.by_token[token]]) for token in replica.tokens]
        return [
            token
            for token, task in tasks
            if token not in self._executions and task.state is TaskState.LEASED and not task.is_cancelling
        ]

    def _is_reached(self, controller: Controller, replica: Replica) -> bool:
        """Whether nothing stands between the controller and what the replica holds."""
        assert controller.state is not None
        node = controller.state.nodes[replica.node]  # type: ignore[index]
        machine, session = self._machines[node.name], controller.sessions.get(node.session)
        process = machine.processes.get(replica.id)
        return (
            session is not None
            and session.stream is machine.daemon.stream
            and machine.network.is_clear(node.name)
            and machine.daemon.is_alive
            and not machine.daemon.is_stopped
            and process is not None
            and not process.is_stopped
            and replica.state is ReplicaState.RUNNING
        )


def _concurrency(state: FarmState, replica: Replica) -> int:
    return state.deployments[replica.deployment].versions[replica.version].policy.concurrency


def _is_free(state: FarmState, replica: Replica) -> bool:
    node = state.nodes.get(replica.node) if replica.node is not None else None
    return (
        node is not None
        and bool(node.session)
        and node.state is NodeState.READY
        and replica.state is ReplicaState.RUNNING
        and not replica.is_retiring
        and len(replica.tokens) < _concurrency(state, replica)
    )
