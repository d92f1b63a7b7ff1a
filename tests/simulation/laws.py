"""What must hold of a farm's state at every moment between turns, and between the state and the journal.

Each law raises Broken with what it found. They read the state only and know nothing of how it came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from controller.core.lives import LIVE_REPLICA_STATES, NodeState, ReplicaState, TaskState
from controller.core.model import Deployment, FarmState, Instant, Node, Product, Replica, Task
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
    """What the journal reads back is what memory holds, but for what only memory knows.

    clock_jumped: stored moments were bounded when they were read, so that they are not compared.
    """
    view = Durable(now, clock_jumped=clock_jumped)
    for mine, theirs in zip(view.of(state), view.of(loaded), strict=True):
        if mine != theirs:
            raise Broken("memory and journal say the same", f"memory {mine}\njournal {theirs}")


class Moment(float):
    """A moment that went to wall time and back: equal to another within a hundredth of a second."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) < 0.01

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__


class Durable:
    """Everything of a state that must survive its controller, as plain values in an order of its own."""

    def __init__(self, now: Instant, *, clock_jumped: bool) -> None:
        self._now = now.mono
        self._clock_jumped = clock_jumped

    def of(self, state: FarmState) -> Iterator[tuple[Any, ...]]:
        """Part by part, so that a difference is small to read."""
        yield "ids", state.epoch, state.next_task, state.next_replica
        yield ("tasks", sorted(self._task(task) for task in state.tasks.values()))
        yield ("replicas", sorted(self._replica(replica) for replica in state.replicas.values()))
        yield ("deployments", sorted(self._deployment(it) for it in state.deployments.values()))
        yield ("products", sorted((it.name, it.source, it.copies, sorted(it.nodes)) for it in state.products.values()))
        yield ("nodes", sorted(self._node(node) for node in state.nodes.values()))
        yield ("pending", sorted(state.pending))
        yield ("leases", sorted(state.lease_batches.items()))

    def _task(self, task: Task) -> tuple[Any, ...]:
        is_held = task.token is not None
        return (
            task.id, task.deployment, task.priority, task.input_size, repr(task.options), task.attempt, task.failures,
            task.crashes, is_held, task.is_cancelling, task.token or 0, task.replica or 0, task.node or "",
            task.lease_batch if is_held else 0, self._ahead(0.0 if is_held else task.not_before),
        )  # fmt: skip

    def _replica(self, it: Replica) -> tuple[Any, ...]:
        is_pending = it.state is ReplicaState.PENDING
        return (
            it.id, it.deployment, it.seat, it.version, it.state.value, it.node or "", it.is_retiring, it.reason,
            it.detail, it.restarts, it.pid, sorted(it.tokens), self._ahead(it.not_before if is_pending else 0.0),
            it.served, it.private_mib, it.ready_ms, Moment(it.since),
        )  # fmt: skip

    def _deployment(self, it: Deployment) -> tuple[Any, ...]:
        rollout = it.rollout
        step = () if rollout is None else (rollout.from_version or 0, rollout.to_version, rollout.state, rollout.reason,
                            rollout.seats_done, self._moment(rollout.deadline))  # fmt: skip
        return (
            it.name, it.replicas_wanted, it.version, it.generation, it.is_removed, it.is_halted, step,
            sorted(it.replicas), it.queued, it.leased, sorted(it.seat_failures.items()),
            [(v.number, v.digest, v.has_run, v.spec_json, repr(v.policy), Moment(v.created_at))
             for v in sorted(it.versions.values(), key=lambda v: v.number)],
        )  # fmt: skip

    def _node(self, node: Node) -> tuple[Any, ...]:
        drain = node.drain
        state = NodeState.READY if node.state is NodeState.UNREACHABLE else node.state
        return (
            node.name, state.value, node.is_cordoned, node.cordon_reason, node.cpu_millicores, node.memory_mib,
            () if drain is None else (self._moment(drain.deadline), drain.is_forced, drain.is_complete),
            sorted(node.replicas), sorted(node.products), node.takes_products, node.market_source,
            sorted(node.assigned), node.recent_failures, sorted(node.labels.items()), sorted(node.capabilities),
            node.gpus, node.metrics_address, node.daemon_version,
        )  # fmt: skip

    def _moment(self, mono: float) -> Moment:
        return Moment(0.0 if self._clock_jumped else mono)

    def _ahead(self, mono: float) -> Moment:
        """A moment still to come; what is past is all the same."""
        return self._moment(max(mono, self._now))


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
