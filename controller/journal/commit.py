"""What one turn of the engine becomes in PostgreSQL: one transaction, which costs the same number of round trips
whether it carries one task or a thousand.

The order inside: fence; tasks come, change, go; leases, nodes, deployments, replicas, products, checkpoints; events
last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names a class in lower case

from controller.core.model import Deployment, Node, Replica, Task, Version
from controller.core.transition import Changes, CheckpointRow, FinishedTask
from controller.journal import statements
from controller.journal.batch import Batch
from controller.journal.encode import (
    TASK_COPY,
    Blobs,
    Clock,
    clean,
    numbers,
    optional_words,
    options_json,
    task_rows,
    to_json,
    words,
)

FINISH_BYTES_MAX: Final = 16 * 1024 * 1024  # outputs in one statement; more are split, in the same transaction
COPY_FROM: Final = 16  # tasks; fewer travel in the turn's own message


class Committer:
    """Writes Changes on a connection that has run statements.PREPARED. Knows which versions are stored, and as what."""

    def __init__(self, versions: Mapping[tuple[str, int], bool], replica_floor: int) -> None:
        self._clock = Clock(0.0)  # that of the turn in progress
        self._versions = dict(versions)
        self._replica_floor = replica_floor

    def write(self, cursor: Cursor, changes: Changes, epoch: int, clock: Clock) -> None:
        """One transaction. The guards in PostgreSQL end it when `epoch` is over or rows are not as expected."""
        self._clock = clock
        batch = Batch(cursor)
        batch.execute("fence", epoch)
        self._tasks(batch, changes)
        _leases(batch, changes)
        self._nodes(batch, changes)
        self._deployments(batch, changes)
        self._replicas(batch, changes)
        _products(batch, changes)
        _checkpoints(batch, changes)
        if changes.events:
            batch.insert("event", statements.EVENT, [
                (it.kind, it.severity, it.at, it.node, it.deployment, it.replica, it.task, clean(it.message),
                 to_json(it.data), clean(it.actor))
                for it in changes.events
            ])  # fmt: skip
        batch.commit()

    # -------------------------------------------------------------- tasks

    def _tasks(self, batch: Batch, changes: Changes) -> None:
        if changes.inserted_tasks:
            _insert(batch, changes.inserted_tasks)
        if changes.requeued_tasks:
            self._requeue(batch, list({task.id: task for task in changes.requeued_tasks}.values()))
        if changes.cancelling_tasks:
            ids = set(changes.cancelling_tasks)
            batch.execute("cancel", numbers(ids), len(ids))
        for part in _parts(changes.finished_tasks):
            _finish(batch, part)
        if changes.ended_attempts:
            batch.insert("attempt", statements.ATTEMPT, [
                (it.task, it.attempt, it.token, it.node, it.replica, it.leased_at, it.ended_at, it.outcome,
                 clean(it.error_type), clean(it.error_message))
                for it in changes.ended_attempts
            ])  # fmt: skip

    def _requeue(self, batch: Batch, tasks: list[Task]) -> None:
        """A task leased again in the same turn keeps the count from before: its lease row bears the new attempt."""
        wall = self._clock.wall
        batch.execute(
            "requeue",
            numbers(task.id for task in tasks),
            numbers(task.attempt - (task.token is not None) for task in tasks),
            numbers(task.failures for task in tasks),
            numbers(task.crashes for task in tasks),
            numbers(wall(task.not_before) for task in tasks),
            numbers(task.is_cancelling for task in tasks),
            len(tasks),
        )

    # -------------------------------------------------------------- what is registered

    def _nodes(self, batch: Batch, changes: Changes) -> None:
        if changes.forgotten_nodes:
            batch.add("DELETE FROM node WHERE name = ANY(%s)", list(changes.forgotten_nodes))
        if changes.nodes:
            rows = [self._node(node) for node in changes.nodes.values()]
            batch.insert("node", statements.NODE, rows, key=("name",))

    def _node(self, node: Node) -> tuple[Any, ...]:
        return (
            node.name, node.state.value, node.is_cordoned, clean(node.cordon_reason),
            self._clock.drain_json(node.drain), node.cpu_millicores, node.memory_mib, node.gpus, to_json(node.labels),
            sorted(map(clean, node.capabilities)), sorted(map(clean, node.products)), node.takes_products,
            clean(node.market_source), clean(node.metrics_address), clean(node.daemon_version),
            node.desired_generation, node.recent_failures,
        )  # fmt: skip

    def _deployments(self, batch: Batch, changes: Changes) -> None:
        if changes.forgotten_deployments:
            gone = set(changes.forgotten_deployments)
            batch.add("DELETE FROM deployment WHERE name = ANY(%s)", list(gone))  # and its versions
            self._versions = {key: it for key, it in self._versions.items() if key[0] not in gone}
        if not changes.deployments:
            return
        rows = [self._deployment(it) for it in changes.deployments.values()]
        batch.insert("deployment", statements.DEPLOYMENT, rows, key=("name",))
        news = [
            (it.name, version)
            for it in changes.deployments.values()
            for version in it.versions.values()
            if self._versions.get((it.name, version.number)) is not version.has_run
        ]
        rows = [_version(name, version) for name, version in news]
        batch.insert("version", statements.VERSION, rows, key=("deployment", "number"))
        self._versions.update({(name, version.number): version.has_run for name, version in news})

    def _deployment(self, it: Deployment) -> tuple[Any, ...]:
        return (
            it.name, it.replicas_wanted, it.version, it.generation, self._clock.rollout_json(it.rollout),
            it.is_removed, it.is_halted, to_json(it.seat_failures),
        )  # fmt: skip

    def _replicas(self, batch: Batch, changes: Changes) -> None:
        highest = max([*changes.replicas, *changes.ended_replicas], default=0)
        if highest >= self._replica_floor:
            self._replica_floor = highest + 1  # an id is a fence: it must not come again after its row is gone
            batch.add("UPDATE leader SET replica_floor = %s", self._replica_floor)
        ended = set(changes.ended_replicas)
        rows = [self._replica(it) for it in changes.replicas.values() if it.id not in ended]
        batch.insert("replica", statements.REPLICA, rows, key=("id",))
        if ended:
            batch.add("DELETE FROM replica WHERE id = ANY(%s::bigint[])", numbers(ended))

    def _replica(self, it: Replica) -> tuple[Any, ...]:
        return (
            it.id, it.deployment, it.seat, it.version, it.state.value, it.node, it.is_retiring, clean(it.reason),
            clean(it.detail), it.restarts, it.pid, it.private_mib, it.ready_ms, it.since,
            self._clock.wall(it.not_before), it.served,
        )  # fmt: skip


# ------------------------------------------------------------------ rows


def _insert(batch: Batch, tasks: Sequence[Task]) -> None:
    if len(tasks) >= COPY_FROM:
        batch.copy(TASK_COPY, task_rows(tasks))
    else:
        inputs = Blobs.of([task.input or b"" for task in tasks])
        batch.execute(
            "insert_tasks",
            numbers(task.id for task in tasks),
            words(task.deployment for task in tasks),
            numbers(task.priority for task in tasks),
            numbers(task.submitted_at for task in tasks),
            numbers(inputs.at),
            numbers(inputs.sizes),
            words(options_json(task.options) for task in tasks),
            inputs.all,
        )
    keyed = [
        (clean(task.options.idempotency_key), task.id, task.submitted_at)
        for task in tasks
        if task.options is not None and task.options.idempotency_key is not None
    ]
    batch.insert("idempotency", statements.IDEMPOTENCY, keyed)


def _parts(finished: Sequence[FinishedTask]) -> Iterable[Sequence[FinishedTask]]:
    """Cut where the outputs of one statement would grow too large."""
    start, size = 0, 0
    for index, item in enumerate(finished):
        size += len(item.output)
        if size > FINISH_BYTES_MAX and index > start:
            yield finished[start:index]
            start, size = index, len(item.output)
    if start < len(finished):
        yield finished[start:]


def _finish(batch: Batch, finished: Sequence[FinishedTask]) -> None:
    tasks = [item.task for item in finished]
    outputs = Blobs.of([item.output for item in finished])
    batch.execute(
        "finish",
        numbers(task.id for task in tasks),
        "{" + ",".join([item.state.value for item in finished]) + "}",
        numbers(item.finished_at for item in finished),
        numbers(task.attempt for task in tasks),
        numbers(task.failures for task in tasks),
        numbers(task.crashes for task in tasks),
        numbers(outputs.at),
        numbers(outputs.sizes),
        optional_words([item.error_type for item in finished]),
        optional_words([item.error_message for item in finished]),
        optional_words([item.error_traceback for item in finished]),
        numbers(item.version for item in finished),
        words(task.node for task in tasks),
        numbers(task.replica for task in tasks),
        numbers(task.token for task in tasks),
        numbers(task.leased_at if task.token is not None else None for task in tasks),
        len(tasks),
        outputs.all,
    )


def _leases(batch: Batch, changes: Changes) -> None:
    for row in changes.lease_batches:
        batch.execute(
            "lease", row.id, row.node, row.leased_at, numbers(row.tasks), numbers(row.attempts), numbers(row.tokens),
            numbers(row.replicas),
        )  # fmt: skip
    if changes.ended_lease_batches:
        batch.execute("end_leases", numbers(changes.ended_lease_batches), len(changes.ended_lease_batches))


def _version(name: str, it: Version) -> tuple[Any, ...]:
    return name, it.number, it.digest, clean(it.spec_json), to_json(it.policy), it.created_at, it.has_run


def _products(batch: Batch, changes: Changes) -> None:
    """Those that go first: one may come again in the same turn."""
    if changes.forgotten_products:
        batch.add("DELETE FROM product WHERE name = ANY(%s)", list(changes.forgotten_products))
    if changes.products:
        rows = [(it.name, it.source, it.copies, sorted(it.nodes), it.added_at) for it in changes.products.values()]
        batch.insert("product", statements.PRODUCT, rows, key=("name",))


def _checkpoints(batch: Batch, changes: Changes) -> None:
    """Of a turn that both stores and drops a thread: a run that has ended needs it no more, so dropping wins."""
    whole = {_checkpoint_key(row): row for row in changes.checkpoints if row.payload is not None}
    rows = [(*key, clean(row.parent_id), row.payload) for key, row in whole.items()]
    batch.insert("checkpoint", statements.CHECKPOINT, rows, key=("thread_id", "namespace", "checkpoint_id"))
    writes = {
        (*_checkpoint_key(row), clean(writer), index): payload
        for row in changes.checkpoints
        for writer, index, payload in row.writes
    }
    parts = [(*key, payload) for key, payload in writes.items()]
    batch.insert("checkpoint_write", statements.WRITE, parts, key=tuple(statements.WRITE)[:5])
    if changes.dropped_threads:
        threads = [clean(thread) for thread in changes.dropped_threads]
        batch.add("DELETE FROM checkpoint_write WHERE thread_id = ANY(%s)", threads)
        batch.add("DELETE FROM checkpoint WHERE thread_id = ANY(%s)", threads)


def _checkpoint_key(row: CheckpointRow) -> tuple[str, str, str]:
    return clean(row.thread_id), clean(row.namespace), clean(row.checkpoint_id)
