"""What must hold of a farm's state at every moment between turns, and between the state and the journal.

Each law raises Broken with what it found. They read the state only and know nothing of how it came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from controller.core.lives import LIVE_REPLICA_STATES, NodeState, ReplicaState, TaskState
from controller.core.model import FarmState, Instant, Node, Product, Replica, Task
from controller.core.parts import TABLES
from controller.core.records import BYTES, MOMENT, Column, columns_of
from controller.core.tasks.dispatch import room_at
from controller.journal.memory import Tables


class Broken(AssertionError):
    """A law does not hold. `law` is its name."""

    def __init__(self, law: str, found: str) -> None:
        super().__init__(f"{law}: {found}")
        self.law = law


def check_state(state: FarmState) -> None:
    """Every law of one state."""
    _tasks_and_leases(state)
    _counters(state)
    _queues(state)
    _hands(state)
    _seats(state)
    _capacity(state)
    check_products(state)


def _tasks_and_leases(state: FarmState) -> None:
    """One holder per lease: task, token index, replica and node agree, and each lease row counts its own."""
    batches: Counter[int] = Counter()
    for task in state.tasks.values():
        if task.state is TaskState.QUEUED:
            if task.token is not None or task.replica is not None or task.node is not None:
                raise Broken("a queued task holds no lease", f"{task}")
            continue
        if task.state not in (TaskState.LEASED, TaskState.RUNNING):
            raise Broken("what is live has not ended", f"{task}")
        if task.token is None or state.by_token.get(task.token) != task.id:
            raise Broken("a leased task is found by its token", f"{task}")
        replica = state.replicas.get(task.replica) if task.replica is not None else None
        if replica is None or task.token not in replica.tokens or replica.node != task.node:
            raise Broken("a lease has one live holder", f"{task} at {replica}")
        batches[task.lease_batch] += 1
    if len(state.by_token) != sum(batches.values()):
        raise Broken("every token is one task's", f"{len(state.by_token)} tokens, {sum(batches.values())} leases")
    held = sum(len(replica.tokens) for replica in state.replicas.values())
    if held != len(state.by_token):
        raise Broken("every token is one replica's", f"{held} held, {len(state.by_token)} known")
    if dict(batches) != state.lease_batches:
        raise Broken("lease rows count their leases", f"{dict(batches)} != {state.lease_batches}")


def _counters(state: FarmState) -> None:
    queued: Counter[str] = Counter()
    leased: Counter[str] = Counter()
    input_bytes = 0
    for task in state.tasks.values():
        if task.state is TaskState.QUEUED:
            queued[task.deployment] += 1
            input_bytes += len(task.input or b"")
        else:
            leased[task.deployment] += 1
    for deployment in state.deployments.values():
        name = deployment.name
        if (deployment.queued, deployment.leased) != (queued[name], leased[name]):
            raise Broken(
                "counters count",
                f"{name}: {deployment.queued}/{deployment.leased}, really {queued[name]}/{leased[name]}",
            )
    if state.queued_input_bytes != input_bytes:
        raise Broken("bytes of queued inputs are counted", f"{state.queued_input_bytes}, really {input_bytes}")


def _queues(state: FarmState) -> None:
    """A queued task stands in exactly one line, once, unless it waits out its backoff: then in none."""
    stands: Counter[int] = Counter()
    for deployment in state.deployments.values():
        for priority, queue in deployment.queues.items():
            for task_id in queue:
                task = state.tasks.get(task_id)
                if task is None or task.state is not TaskState.QUEUED:
                    continue  # cancelled meanwhile: skipped at dispatch
                stands[task_id] += 1
                if task.deployment != deployment.name or task.priority != priority:
                    raise Broken("a task stands in its own line", f"{task} in {deployment.name} at {priority}")
    for task in state.tasks.values():
        if task.state is TaskState.QUEUED and stands[task.id] != (0 if task.not_before else 1):
            raise Broken("a queued task stands in line once", f"{task} stands {stands[task.id]} times")
        if task.state is TaskState.QUEUED and state.deployments[task.deployment].is_removed:
            raise Broken("nothing waits for what was removed", f"{task}")


def _hands(state: FarmState) -> None:
    """No task waits beside a replica that could take it, but for what a turn's limit of bytes held back."""
    for deployment in state.deployments.values():
        if deployment.name in state.undispatched or not any(
            task_id in state.tasks and state.tasks[task_id].state is TaskState.QUEUED
            for queue in deployment.queues.values()
            for task_id in queue
        ):
            continue
        for replica_id in deployment.replicas:
            replica = state.replicas[replica_id]
            node = state.nodes.get(replica.node) if replica.node is not None else None
            if node is None or node.state is not NodeState.READY or not node.session:
                continue
            size = room_at(state, deployment, replica, state.last_turn)
            if replica.state is ReplicaState.RUNNING and not replica.is_retiring and len(replica.tokens) < size:
                raise Broken("no task waits beside a free hand", f"{deployment.name}: {replica}")


def _seats(state: FarmState) -> None:
    for replica in state.replicas.values():
        deployment = state.deployments.get(replica.deployment)
        if deployment is None or replica.id not in deployment.replicas or replica.version not in deployment.versions:
            raise Broken("a replica is its deployment's", f"{replica}")
        if (replica.state is ReplicaState.PENDING) != (replica.id in state.pending):
            raise Broken("what is pending wants a node", f"{replica}")
        if replica.state is ReplicaState.PENDING:
            if replica.node is not None:
                raise Broken("a pending replica has no node", f"{replica}")
            continue
        if replica.state not in LIVE_REPLICA_STATES:
            raise Broken("an ended replica is forgotten", f"{replica}")
        node = state.nodes.get(replica.node) if replica.node is not None else None
        if node is None or replica.id not in node.replicas:
            raise Broken("a placed replica sits on its node", f"{replica} on {node}")
        if node.state in (NodeState.LOST, NodeState.JOINING):
            raise Broken("nothing sits on a lost node", f"{replica} on {node.name}, {node.state}")
    for deployment in state.deployments.values():
        if missing := deployment.replicas - state.replicas.keys():
            raise Broken("a deployment's replicas are live", f"{deployment.name}: {missing}")
    for node in state.nodes.values():
        if missing := node.replicas - state.replicas.keys():
            raise Broken("a node's replicas are live", f"{node.name}: {missing}")


def _capacity(state: FarmState) -> None:
    for node in state.nodes.values():
        cpu, memory, gpus = promised(state, node)
        if cpu > int(node.cpu_millicores * state.limits.cpu_overcommit) or memory > node.memory_mib or gpus > node.gpus:
            raise Broken("no node is promised beyond what it has", f"{node.name}: {cpu}m {memory} MiB {gpus} GPUs")


def check_products(state: FarmState) -> None:
    """Products and nodes agree on who feeds what, and nobody was told to who could not, or who does so anyway."""
    for product in state.products.values():
        for name in product.nodes:
            node = state.nodes.get(name)
            if node is None or product.name not in node.assigned:
                raise Broken("a product's nodes know it", f"{product} on {node}")
            if node.state in (NodeState.LOST, NodeState.JOINING) or not node.takes_products:
                raise Broken("a product is assigned to nodes that can feed it", f"{product} on {node}")
            if product.name in node.products or (product.source and product.source != node.market_source):
                raise Broken("a product is assigned to nodes that can feed it", f"{product} on {node}")
            if node.drain is not None and node.drain.is_forced:
                raise Broken("nothing is assigned beyond a drain's deadline", f"{product} on {node}")
        if len(product.nodes) > 2 * product.copies:
            raise Broken("a product has its copies and those being moved", f"{product}")
        _copies(state, product)
    for node in state.nodes.values():
        if stale := {
            it for it in node.assigned if it not in state.products or node.name not in state.products[it].nodes
        }:
            raise Broken("what a node is told to feed is a product", f"{node.name}: {stale}")
        if node.drain is not None and node.drain.is_complete and node.assigned:
            raise Broken("a drained node feeds nothing", f"{node.name}: {node.assigned}")


def _copies(state: FarmState, product: Product) -> None:
    """No copy is missing beside a node that could take it."""
    fits = [node for node in state.nodes.values() if product.source in ("", node.market_source)]
    staying = [
        node
        for node in fits
        if node.drain is None
        and (node.name in product.nodes or product.name in node.products)
        and node.state in (NodeState.READY, NodeState.UNREACHABLE)
    ]
    free = [
        node.name
        for node in fits
        if node.takes_products and node.state is NodeState.READY and node.session and node not in staying
        and node.drain is None and not node.is_cordoned
    ]  # fmt: skip
    if len(staying) < product.copies and free:
        raise Broken("no copy is missing beside a node that could feed it", f"{product}, free: {free}")


def promised(state: FarmState, node: Node) -> tuple[int, int, int]:
    """What the replicas on a node were promised: CPU in millicores, memory in MiB, GPUs."""
    needs = [
        state.deployments[it.deployment].versions[it.version].policy.resources
        for it in (state.replicas[replica] for replica in node.replicas)
    ]
    return sum(n.cpu_millicores for n in needs), sum(n.memory_mib for n in needs), sum(n.gpus for n in needs)


# ------------------------------------------------------------------ memory and journal


def check_same(state: FarmState, loaded: FarmState, now: Instant, *, clock_jumped: bool = False) -> None:
    """What the journal reads back is what memory holds: every stored field, and all that is made of them.

    clock_jumped: stored moments were bounded when they were read, so that they are not compared.
    """
    same = Same(now, clock_jumped=clock_jumped)
    for table in TABLES:
        mine, theirs = ({table.key_of(it): it for it in table.things(each)} for each in (state, loaded))
        same.records(table.name, table.columns, mine, theirs)
    same.records("task", TASK_COLUMNS, state.tasks, loaded.tasks)
    for made in (_ids, _leases, _members):
        if made(state) != made(loaded):
            raise Broken("memory and journal say the same", f"memory {made(state)}\njournal {made(loaded)}")


def _ids(state: FarmState) -> tuple[Any, ...]:
    return state.epoch, state.next_task, state.next_replica, sorted(state.pending)


def _leases(state: FarmState) -> tuple[Any, ...]:
    counts = {it.name: (it.queued, it.leased) for it in state.deployments.values()}
    return state.lease_batches, state.by_token, counts


def _members(state: FarmState) -> tuple[Any, ...]:
    return (
        {it.name: (it.replicas, it.assigned) for it in state.nodes.values()},
        {it.name: (it.replicas, it.versions.keys()) for it in state.deployments.values()},
        {it.id: it.tokens for it in state.replicas.values()},
    )


TASK_COLUMNS: Final = columns_of(Task)
MOMENT_SLACK_S: Final = 0.01
"""What a moment may lose on its way to wall time and back."""


class Same:
    """Whether records are equal in every stored field, but for what a restart is careful with."""

    def __init__(self, now: Instant, *, clock_jumped: bool) -> None:
        self._now = now.mono
        self._clock_jumped = clock_jumped

    def records(
        self, name: str, columns: tuple[Column, ...], mine: Mapping[Any, Any], theirs: Mapping[Any, Any]
    ) -> None:
        """Those of one table, by their keys."""
        if mine.keys() != theirs.keys():
            raise Broken("memory and journal say the same", f"{name}: memory {[*mine]}\njournal {[*theirs]}")
        for key, it in mine.items():
            other = theirs[key]
            for column in columns:
                here, there = getattr(it, column.field), getattr(other, column.field)
                if here != there and not self._is_close(column, it, here, there):
                    raise Broken(
                        "memory and journal say the same",
                        f"{column.field} of {name} {key}: memory {here!r}, journal {there!r}\n{it}",
                    )

    def _is_close(self, column: Column, it: Any, here: Any, there: Any) -> bool:
        form = column.form
        if isinstance(it, Task) and it.token is None and column.table == "lease":
            return True  # of a lease that is over
        if form is BYTES:
            return here is None or there is None  # memory was short
        if isinstance(here, NodeState):
            return {here, there} == {NodeState.READY, NodeState.UNREACHABLE}
        if form is MOMENT:
            if self._clock_jumped or (isinstance(it, Task) and it.token is not None):
                return True
            if isinstance(it, Task | Replica):  # what has passed is all the same
                here, there = max(here, self._now), max(there, self._now)
            return self._is_at(here, there)
        if form.columns and here is not None and there is not None:
            pairs = ((each, getattr(here, each.field), getattr(there, each.field)) for each in form.columns)
            return all(left == right or self._is_close(each, here, left, right) for each, left, right in pairs)
        return form.type == "time" and self._is_at(here, there)

    def _is_at(self, here: float, there: float) -> bool:
        return abs(here - there) < MOMENT_SLACK_S


# ------------------------------------------------------------------ what is durable, over time


class Ledger:
    """Watches the tables grow: what is final stays, what was acknowledged stays known, tokens only grow."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._final: dict[int, tuple[Any, ...]] = {}
        self._newest_token = 0

    def check(self) -> None:
        """Compare with what was seen before. Cheap: only what is new is looked at in depth."""
        tables = self._tables
        for task_id in self._final.keys() - tables.finished.keys():
            raise Broken("a final state never changes", f"task {task_id} was {self._final[task_id]}, now forgotten")
        for task_id in tables.finished.keys() & tables.tasks.keys():
            raise Broken("a final state never changes", f"task {task_id} has ended and is live")
        for task_id, item in tables.finished.items():
            word = (item.state, item.output, item.task.token, item.error_type)
            if self._final.setdefault(task_id, word) != word:
                raise Broken("a final state never changes", f"task {task_id}: {self._final[task_id]} -> {word}")

    def committed(self, tokens: list[int]) -> None:
        """These tokens were just leased, in one turn."""
        for token in sorted(tokens):
            if token <= self._newest_token:
                raise Broken("tokens only grow", f"{token} after {self._newest_token}")
            self._newest_token = token
