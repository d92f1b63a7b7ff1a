"""The eyes of a history: what each part says and does is compared with what was committed, all the time.

The checkers keep their own books. They learn of commits from the database at the moment they are applied, of
executions from the replica processes, of answers from the clients; they never believe what the core says of itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from agentfarm.errors import FarmError
from controller.core.commands import NodeBeat, NodeJoined, ReplicasReported
from controller.core.lives import NodeState, ReplicaState, TaskState
from controller.core.model import Instant, Node, Replica
from controller.core.transition import (
    AckResults,
    Assign,
    Changes,
    Effect,
    FinishedTask,
    SetDesired,
    Transition,
)
from controller.journal.errors import JournalCorrupt
from controller.journal.memory import MemoryJournal, Tables
from tests.simulation.feeds import FeedChecks
from tests.simulation.laws import Broken, check_products, check_same, check_state
from tests.simulation.parking import ParkingChecks

if TYPE_CHECKING:
    from agentfarm.wire import link_pb2 as wire
    from tests.simulation.agents import Execution
    from tests.simulation.controllers import Controller
    from tests.simulation.machines import Machine
    from tests.simulation.world import World

STATE_EACH = 8  # turns with changes between two checks of the whole state
JOURNAL_EACH = 24  # turns with changes between two comparisons with the journal
FAILING = ("failed", "timed_out")
CRASHED = "ReplicaCrashed"
PERMANENT = "Reject"


class Checkers:
    """One history's books."""

    def __init__(self, world: World, tables: Tables, machines: dict[str, Machine], *, each: int = 1) -> None:
        self._world = world
        self._tables = tables
        self._machines = machines
        self._each = each
        self._turns = 0
        self.clock_jumped = False
        self._epoch = 0
        self._newest_token = 0
        self._leases: dict[int, tuple[int, int, str]] = {}  # every token ever leased -> task, replica, node
        self._leased_at: dict[int, float] = {}
        self._holder: dict[int, int] = {}  # task -> the token that holds its lease now
        self._final: dict[int, tuple[Any, ...]] = {}
        self._executions: dict[int, Execution] = {}
        self._active: dict[int, dict[int, bool]] = {}  # task -> tokens that run now, and whether exclusively
        self._failures: Counter[int] = Counter()
        self._crashes: Counter[int] = Counter()
        self._attempts_max: dict[int, int] = {}
        self._acknowledged: set[int] = set()
        self._keys: dict[str, int] = {}
        self._heard: dict[tuple[str, int, str], float] = {}  # controller, its life, node -> when
        self._drained: set[str] = set()
        self.feeds = FeedChecks(tables, machines)
        self.parking = ParkingChecks(world, machines, self._executions, self._holder)

    # -------------------------------------------------------------- turns

    def before_turn(self, controller: Controller) -> None:
        """Note whom the controller hears in this turn, and that it hears every stream it has open."""
        state = controller.state
        assert state is not None
        for session in controller.sessions.values():
            open_to = state.nodes.get(session.node)
            if session.is_joined and open_to is not None and not open_to.session:
                raise Broken("a stream that is open is heard", f"session {session.number} of {session.node}")
        sessions = {node.name: node.session for node in state.nodes.values()}
        self.feeds.heard(state.epoch, sessions, [command for command, _ in controller.turns.waiting])
        for command, _ in controller.turns.waiting:
            if isinstance(command, NodeJoined):
                self._heard[controller.name, controller.life, command.node] = self._world.now
            elif isinstance(command, NodeBeat | ReplicasReported):
                node = state.nodes.get(command.node)
                if node is not None and node.session == command.session:
                    self._heard[controller.name, controller.life, command.node] = self._world.now

    def decided(self, controller: Controller, transition: Transition) -> None:
        """What the core wants, before it is durable."""
        changes, state = transition.changes, controller.state
        assert state is not None
        if changes.is_empty():
            return
        leads = state.epoch == self._tables.epoch  # else the commit is refused, and old wishes place nothing
        for replica in changes.stored(Replica) if leads else ():
            stored = self._tables.find(Replica, replica.id)
            if replica.state is ReplicaState.STARTING and (stored is None or stored.node is None):
                self._placed(controller, replica.node)
        for batch in changes.lease_batches:
            for replica_id in batch.replicas:
                self._may_work(controller, replica_id, batch.node)
        for node in changes.stored(Node):
            known = self._tables.find(Node, node.name)
            if node.state is NodeState.LOST and (known is None or known.state is not NodeState.LOST):
                self._lost(controller, node.name)
        check_products(state)
        self.parking.decided(controller, transition)

    def _placed(self, controller: Controller, name: str | None) -> None:
        assert controller.state is not None
        node = controller.state.nodes[name] if name is not None else None  # type: ignore[index]
        if node is None or node.state is not NodeState.READY or node.is_cordoned or node.drain is not None:
            raise Broken("nothing is placed on a cordoned, draining or lost node", f"{node}")

    def _may_work(self, controller: Controller, replica_id: int, name: str) -> None:
        assert controller.state is not None
        replica = controller.state.replicas[replica_id]  # type: ignore[index]
        node = controller.state.nodes[name]  # type: ignore[index]
        if replica.node != name or replica.state is not ReplicaState.RUNNING or replica.is_retiring:
            raise Broken("work goes to replicas that run", f"{replica} on {name}")
        if node.state is not NodeState.READY or not node.session:
            raise Broken("work goes to nodes that are heard", f"{node}")

    def _lost(self, controller: Controller, name: str) -> None:
        """A lease that is issued again before its node was silent long enough would be trusted by two."""
        state = controller.state
        assert state is not None
        since = max(
            self._heard.get((controller.name, controller.life, name), 0.0),
            controller.loaded_at.mono - controller.mono_offset_s,
        )
        if self._world.now - since < controller.limits.reissue_after_s - 0.001:
            raise Broken("a lease holds until its node was silent for T2", f"{name} after {self._world.now - since}")

    def published(self, controller: Controller, transition: Transition) -> None:
        """The controller believes that a turn is durable."""
        for item in transition.finished:
            if item.task.id not in self._tables.finished:
                raise Broken("nothing is told before it is durable", f"end of task {item.task.id}")
        self.parking.published(controller)
        if transition.changes.is_empty():
            return
        state = controller.state
        assert state is not None
        self._turns += 1
        if self._turns % (STATE_EACH // self._each or 1) == 0:
            check_state(state)
        if self._turns % (JOURNAL_EACH // self._each or 1) == 0 and state.epoch == self._tables.epoch:
            offset_s = controller.loaded_at.wall - controller.loaded_at.mono
            now = Instant(controller.now.mono, controller.now.mono + offset_s)
            try:
                loaded = MemoryJournal(self._tables).load(state.limits, now)
            except JournalCorrupt as problem:
                self.commit_failed(problem)
            check_same(state, loaded, now, clock_jumped=self.clock_jumped)

    def commit_failed(self, problem: FarmError) -> None:
        """The journal refused something. That the rows are not what the core believes is never anybody's bad luck."""
        if isinstance(problem, JournalCorrupt):
            raise Broken("the core knows what is stored", str(problem))

    # -------------------------------------------------------------- commits

    def committed(self, changes: Changes, epoch: int) -> None:
        """The database applied a turn, at this moment."""
        if epoch < self._epoch:
            raise Broken("a leader that lost the lead commits nothing", f"epoch {epoch} after {self._epoch}")
        self._epoch = epoch
        for task in changes.inserted_tasks:
            limit = task.options.max_attempts if task.options is not None else None
            self._attempts_max[task.id] = limit or 3
        for ended in changes.ended_attempts:
            self._attempt_ended(ended.task, ended.token, ended.outcome, ended.error_type)
            self.parking.attempt_ended(ended, epoch)
        for item in changes.finished_tasks:
            self._finished(item)
            self.parking.progressed(item.task.replica)
        for batch in changes.lease_batches:
            for task_id, token, replica in zip(batch.tasks, batch.tokens, batch.replicas, strict=True):
                self._leased(task_id, token, replica, batch.node)
        if batch_tokens := [token for batch in changes.lease_batches for token in batch.tokens]:
            if min(batch_tokens) <= self._newest_token:
                raise Broken("tokens only grow", f"{min(batch_tokens)} after {self._newest_token}")
            self._newest_token = max(batch_tokens)
        self.feeds.committed(changes, epoch)
        for node in changes.stored(Node):
            self._drain(node.name, is_complete=node.drain is not None and node.drain.is_complete)

    def _attempt_ended(self, task_id: int, token: int, outcome: str, error_type: str) -> None:
        if self._holder.get(task_id) != token:
            raise Broken(
                "only the holder's attempt ends", f"task {task_id}: {token}, held by {self._holder.get(task_id)}"
            )
        del self._holder[task_id]
        if error_type == PERMANENT:
            raise Broken("a permanent error is final", f"task {task_id} is tried again")
        self._failures[task_id] += outcome in FAILING
        self._crashes[task_id] += error_type == CRASHED
        if self._failures[task_id] >= self._attempts_max[task_id]:
            raise Broken("a task has only its attempts", f"task {task_id} failed {self._failures[task_id]} times")
        if self._crashes[task_id] >= 3:
            raise Broken("poison is not tried again", f"task {task_id} crashed {self._crashes[task_id]} replicas")

    def _leased(self, task_id: int, token: int, replica: int, node: str) -> None:
        if task_id in self._final:
            raise Broken("a final state never changes", f"task {task_id} was leased after its end")
        if task_id in self._holder:
            raise Broken("one valid holder per attempt", f"task {task_id}: {self._holder[task_id]} and {token}")
        self._holder[task_id] = token
        self._leases[token] = (task_id, replica, node)
        self._leased_at[token] = self._world.now

    def _finished(self, item: FinishedTask) -> None:
        task_id, token = item.task.id, item.task.token
        if task_id in self._final:
            raise Broken("a final state never changes", f"task {task_id}")
        self._final[task_id] = (item.state, item.output, token)
        if self._holder.pop(task_id, None) != token:
            raise Broken("only the holder ends its task", f"task {task_id} by {token}")
        execution = self._executions.get(token) if token is not None else None
        if item.state is TaskState.SUCCEEDED:
            if execution is None or execution.output != item.output or execution.task_id != task_id:
                raise Broken("what is stored is what was done", f"task {task_id}: {item.output!r}, {execution}")
        elif item.error_type == PERMANENT and (execution is None or execution.does != "reject"):
            raise Broken("what is stored is what was done", f"task {task_id} refused, {execution}")
        elif item.state is TaskState.DEAD and item.error_type != "Poison":
            failures = self._failures[task_id] + 1
            if failures < self._attempts_max[task_id]:
                raise Broken("a task has all its attempts", f"task {task_id} is dead after {failures}")

    def _drain(self, name: str, *, is_complete: bool) -> None:
        if not is_complete:
            self._drained.discard(name)
            return
        machine = self._machines.get(name)
        if name not in self._drained and machine is not None and machine.processes:
            raise Broken("a drained node has no process", f"{name} has {sorted(machine.processes)}")
        self._drained.add(name)

    # -------------------------------------------------------------- what is said

    def sent(self, effect: Effect) -> None:
        """The controller tells a node something."""
        if isinstance(effect, AckResults):
            for token in effect.tokens:
                lease = self._leases.get(token)
                if lease is not None and self._holder.get(lease[0]) == token:
                    raise Broken("a result is acknowledged when it is stored", f"{token} of task {lease[0]}")
        elif isinstance(effect, Assign):
            for it in effect.leases:
                if it.token not in self._leases:
                    raise Broken("an attempt is given when its lease is stored", f"{it.token} of task {it.task}")
        elif isinstance(effect, SetDesired):
            self.feeds.sent(effect)

    def introduced(self, machine: Machine, hello: wire.Hello) -> None:
        """A daemon says Hello. What it does not name is done again."""
        named = {*hello.running_tokens, *hello.finished_tokens}
        for task_id, token in self._holder.items():
            execution = self._executions.get(token)
            if execution is None or execution.ended_at is None or execution.machine != machine.name or token in named:
                continue
            if token in machine.disk.outbox or _is_beside(machine, execution):
                raise Broken("a result is in hand until it is stored", f"{execution} of task {task_id}")

    def acknowledged(self, key: str | None, task_id: int) -> None:
        """A client was told that its task is accepted."""
        if task_id not in self._tables.tasks and task_id not in self._tables.finished:
            raise Broken("no acknowledged task is unknown", f"task {task_id}")
        if key is not None and self._keys.setdefault(key, task_id) != task_id:
            raise Broken("one key is one task", f"{key}: {self._keys[key]} and {task_id}")
        self._acknowledged.add(task_id)

    # -------------------------------------------------------------- what is done

    def began(self, execution: Execution, is_exclusive: bool) -> None:
        """A replica begins to work."""
        token, task_id = execution.token, execution.task_id
        lease = self._leases.get(token)
        if lease is None or lease[:2] != (task_id, execution.replica_id):
            raise Broken("what runs was leased", f"{execution}, leased {lease}")
        if token in self._executions:
            raise Broken("an attempt runs once", f"{execution} after {self._executions[token]}")
        self._executions[token] = execution
        active = self._active.setdefault(task_id, {})
        if is_exclusive and any(active.values()):
            raise Broken("exclusive attempts never overlap", f"{execution} beside {active}")
        active[token] = is_exclusive

    def ended(self, execution: Execution) -> None:
        """It works no more, for whatever reason."""
        self._active[execution.task_id].pop(execution.token, None)

    # -------------------------------------------------------------- the end

    def every_lease_is_in_hand(self, before: float) -> None:
        """What was leased before that moment is worked on, waits at a replica, or its result waits to be told."""
        hands: set[int] = set()
        for machine in self._machines.values():
            hands |= machine.daemon.in_hand
        for task_id, token in self._holder.items():
            if token not in hands and self._leased_at[token] < before:
                raise Broken("a lease is in somebody's hands", f"{token} of task {task_id}, {self._leases[token]}")

    def is_quiet(self) -> bool:
        """Whether every task has ended and every hand is empty."""
        if self._tables.tasks or self._tables.leases:
            return False
        for machine in self._machines.values():
            if machine.daemon.in_hand or machine.disk.outbox:
                return False
            wanted = {it.id for it in self._tables.stored(Replica) if it.node == machine.name}
            if machine.processes.keys() != wanted:
                return False
        return not self.feeds.unsettled()

    def why_not_quiet(self) -> str:
        """What has not ended."""
        tasks = [f"task {row.id} of {row.deployment}, attempt {row.attempt}" for row in self._tables.tasks.values()]
        hands = [
            f"{machine.name}: in hand {machine.daemon.in_hand}, on disk {list(machine.disk.outbox)},"
            f" processes {sorted(machine.processes)}"
            for machine in self._machines.values()
        ]
        seats = [f"{it.deployment}/{it.seat} {it.state} on {it.node}" for it in self._tables.stored(Replica)]
        rows = f"{len(self._tables.leases)} lease rows"
        return "; ".join([*tasks[:5], rows, *hands, *seats, *self.feeds.unsettled()])

    def at_the_end(self) -> None:
        """Faults stopped and everything had its time."""
        for task_id in self._acknowledged:
            if task_id not in self._tables.finished:
                raise Broken("no acknowledged task is unknown", f"task {task_id} has no end")
        for task_id, (state, output, token) in self._final.items():
            stored = self._tables.finished.get(task_id)  # type: ignore[call-overload]
            if stored is None or (stored.state, stored.output, stored.task.token) != (state, output, token):
                raise Broken("a final state never changes", f"task {task_id}: {state} -> {stored}")


def _is_beside(machine: Machine, execution: Execution) -> bool:
    """Whether the process that did it lives, and has said to this daemon what it holds."""
    process, seat = machine.processes.get(execution.replica_id), machine.daemon.roster.seats.get(execution.replica_id)
    return process is not None and process.pid == execution.pid and seat is not None and seat.ponged_at > 0.0
