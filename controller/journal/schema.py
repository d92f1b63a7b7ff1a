"""The tables, as they are after every migration. A test holds this file and the migrations together.

Times are `timestamptz`. The words of states come from controller/core/lives.py and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from agentfarm.limits import PRIORITY_MAX, PRIORITY_MIN
from controller.core.lives import FINAL_TASK_STATES, NodeState, Outcome, ReplicaState

BUNDLE_CHUNK_BYTES: Final = 1024 * 1024
SEVERITIES: Final = ("info", "warning", "error")

metadata = MetaData()


def one_of(column: str, words: Iterable[str], name: str) -> CheckConstraint:
    """CHECK that a column holds one of a set of words."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


def _time(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def _words(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text("''"))


def _json(name: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'"))


# One row. The epoch fences leaders; the floors keep ids from ever being given twice, whatever was deleted since.
leader = Table(
    "leader",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("task_floor", BigInteger, nullable=False, server_default=text("1")),
    Column("replica_floor", BigInteger, nullable=False, server_default=text("1")),
    CheckConstraint("is_only", name="leader_is_only"),
)

node = Table(
    "node",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    _flag("is_cordoned"),
    _words("cordon_reason"),
    Column("drain", JSONB),
    _count("cpu_millicores"),
    _count("memory_mib"),
    _count("gpus"),
    _json("labels"),
    Column("capabilities", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("products", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _flag("takes_products"),
    _words("market_source"),
    _words("metrics_address"),
    _words("daemon_version"),
    Column("desired_generation", BigInteger, nullable=False, server_default=text("0")),
    _count("recent_failures"),
    one_of("state", NodeState, "node_state"),
)

deployment = Table(
    "deployment",
    metadata,
    Column("name", Text, primary_key=True),
    Column("replicas_wanted", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("rollout", JSONB),
    _flag("is_removed"),
    _flag("is_halted"),
    _json("seat_failures"),
    CheckConstraint("replicas_wanted >= 0", name="deployment_replicas_wanted"),
)

version = Table(
    "version",
    metadata,
    Column("deployment", Text, ForeignKey("deployment.name", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    _time("created_at"),
    _flag("has_run"),
    PrimaryKeyConstraint("deployment", "number", name="version_pkey"),
    CheckConstraint("number > 0", name="version_number"),
)

replica = Table(
    "replica",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("deployment", Text, nullable=False),
    Column("seat", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("node", Text),
    _flag("is_retiring"),
    _words("reason"),
    _words("detail"),
    _count("restarts"),
    _count("pid"),
    _count("private_mib"),
    _count("ready_ms"),
    _time("since"),
    _time("not_before", nullable=True),
    Column("served", BigInteger, nullable=False, server_default=text("0")),
    one_of("state", ReplicaState, "replica_state"),
)

# What the operator wants fed, and the nodes that must feed it. What the nodes say of it is not stored.
product = Table(
    "product",
    metadata,
    Column("name", Text, primary_key=True),
    _words("source"),
    Column("copies", Integer, nullable=False, server_default=text("1")),
    Column("nodes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _time("added_at"),
    CheckConstraint("copies > 0", name="product_copies"),
)

# The queue. A row is written once and moved once; only a retry or a cancellation touches it in between.
task = Table(
    "task",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("deployment", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    _time("submitted_at"),
    Column("input", LargeBinary, nullable=False),
    _count("attempt"),
    _count("failures"),
    _count("crashes"),
    _time("not_before", nullable=True),
    _flag("is_cancelling"),
    Column("options", JSONB),
    CheckConstraint(f"priority BETWEEN {PRIORITY_MIN} AND {PRIORITY_MAX}", name="task_priority"),
)

# Partitioned by the day of `finished_at` (UTC); retention drops whole days.
task_finished = Table(
    "task_finished",
    metadata,
    Column("id", BigInteger, nullable=False, autoincrement=False),
    Column("deployment", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    _time("submitted_at"),
    Column("input", LargeBinary, nullable=False),
    Column("options", JSONB),
    Column("state", Text, nullable=False),
    _time("finished_at"),
    _count("attempt"),
    _count("failures"),
    _count("crashes"),
    Column("output", LargeBinary, nullable=False),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    Column("version", Integer),
    Column("node", Text),
    Column("replica", BigInteger),
    Column("token", BigInteger),
    _time("leased_at", nullable=True),
    one_of("state", sorted(FINAL_TASK_STATES), "task_finished_state"),
    Index("task_finished_id", "id"),
    Index("task_finished_deployment", "deployment", "id"),
    Index("task_finished_unhappy", "state", "id", postgresql_where=text("state <> 'succeeded'")),
    postgresql_partition_by="RANGE (finished_at)",
)

# How many tasks ended in which way, of all time. To count millions of rows for a status line would cost more than to
# run them.
task_tally = Table(
    "task_tally",
    metadata,
    Column("day", Date, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "deployment", "state", name="task_tally_pkey"),
)

# Attempts that ended before their task did.
attempt = Table(
    "attempt",
    metadata,
    Column("task", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("node", Text),
    Column("replica", BigInteger),
    _time("leased_at"),
    _time("ended_at"),
    Column("outcome", Text, nullable=False),
    _words("error_type"),
    _words("error_message"),
    PrimaryKeyConstraint("task", "attempt", "token", name="attempt_pkey"),
    one_of("outcome", Outcome, "attempt_outcome"),
)

# One row holds all leases given to one node in one turn: four arrays of equal length.
lease = Table(
    "lease",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False),
    _time("leased_at"),
    Column("tasks", ARRAY(BigInteger), nullable=False),
    Column("attempts", ARRAY(Integer), nullable=False),
    Column("tokens", ARRAY(BigInteger), nullable=False),
    Column("replicas", ARRAY(BigInteger), nullable=False),
    CheckConstraint(
        "cardinality(tasks) = cardinality(attempts) AND cardinality(tasks) = cardinality(tokens)"
        " AND cardinality(tasks) = cardinality(replicas)",
        name="lease_arrays",
    ),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("checkpoint_id", Text, nullable=False),
    _words("parent_id"),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("thread_id", "namespace", "checkpoint_id", name="checkpoint_pkey"),
)

checkpoint_write = Table(
    "checkpoint_write",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("checkpoint_id", Text, nullable=False),
    Column("writer_id", Text, nullable=False),
    Column("index", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("thread_id", "namespace", "checkpoint_id", "writer_id", "index", name="checkpoint_write_pkey"),
)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    _time("at"),
    Column("node", Text),
    Column("deployment", Text),
    Column("replica", BigInteger),
    Column("task", BigInteger),
    Column("message", Text, nullable=False),
    _json("data"),
    _words("actor"),
    one_of("severity", SEVERITIES, "event_severity"),
    Index("event_task", "task", postgresql_where=text("task IS NOT NULL")),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),
    Column("task", BigInteger, nullable=False),
    _time("at"),
)

bundle = Table(
    "bundle",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    _time("stored_at"),
    CheckConstraint("digest ~ '^sha256:[0-9a-f]{64}$'", name="bundle_digest"),
)

bundle_chunk = Table(
    "bundle_chunk",
    metadata,
    Column("digest", Text, ForeignKey("bundle.digest", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("digest", "number", name="bundle_chunk_pkey"),
)

# `secret` is there only until the invitation is used or has expired.
invite = Table(
    "invite",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary),
    _time("expires_at"),
    _time("used_at", nullable=True),
)

secret = Table(
    "secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    _time("stored_at"),
)
