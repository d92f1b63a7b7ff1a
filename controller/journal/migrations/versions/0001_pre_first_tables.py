"""pre: the first tables."""

from __future__ import annotations

from alembic import op

revision = "0001_pre_first_tables"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE attempt (
    task BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    token BIGINT NOT NULL,
    node TEXT,
    replica BIGINT,
    leased_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
    outcome TEXT NOT NULL,
    error_type TEXT DEFAULT '' NOT NULL,
    error_message TEXT DEFAULT '' NOT NULL,
    CONSTRAINT attempt_pkey PRIMARY KEY (task, attempt, token),
    CONSTRAINT attempt_outcome CHECK (
        outcome IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'interrupted', 'lost'))
);
CREATE TABLE bundle (
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (digest),
    CONSTRAINT bundle_digest CHECK (digest ~ '^sha256:[0-9a-f]{64}$')
);
CREATE TABLE checkpoint (
    thread_id TEXT NOT NULL,
    namespace TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    parent_id TEXT DEFAULT '' NOT NULL,
    payload BYTEA NOT NULL,
    CONSTRAINT checkpoint_pkey PRIMARY KEY (thread_id, namespace, checkpoint_id)
);
CREATE TABLE checkpoint_write (
    thread_id TEXT NOT NULL,
    namespace TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    writer_id TEXT NOT NULL,
    index INTEGER NOT NULL,
    payload BYTEA NOT NULL,
    CONSTRAINT checkpoint_write_pkey PRIMARY KEY (thread_id, namespace, checkpoint_id, writer_id, index)
);
CREATE TABLE deployment (
    name TEXT NOT NULL,
    replicas_wanted INTEGER NOT NULL,
    version INTEGER NOT NULL,
    generation BIGINT NOT NULL,
    rollout JSONB,
    is_removed BOOLEAN DEFAULT false NOT NULL,
    is_halted BOOLEAN DEFAULT false NOT NULL,
    seat_failures JSONB DEFAULT '{}' NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT deployment_replicas_wanted CHECK (replicas_wanted >= 0)
);
CREATE TABLE event (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    node TEXT,
    deployment TEXT,
    replica BIGINT,
    task BIGINT,
    message TEXT NOT NULL,
    data JSONB DEFAULT '{}' NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT event_severity CHECK (severity IN ('info', 'warning', 'error'))
);
CREATE INDEX event_task ON event (task) WHERE task IS NOT NULL;
CREATE TABLE idempotency (
    key TEXT NOT NULL,
    task BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (key)
);
CREATE TABLE invite (
    name TEXT NOT NULL,
    secret BYTEA,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (name)
);
CREATE TABLE leader (
    is_only BOOLEAN DEFAULT true NOT NULL,
    epoch BIGINT DEFAULT 0 NOT NULL,
    task_floor BIGINT DEFAULT 1 NOT NULL,
    replica_floor BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (is_only),
    CONSTRAINT leader_is_only CHECK (is_only)
);
CREATE TABLE lease (
    id BIGINT NOT NULL,
    node TEXT NOT NULL,
    leased_at TIMESTAMP WITH TIME ZONE NOT NULL,
    tasks BIGINT[] NOT NULL,
    attempts INTEGER[] NOT NULL,
    tokens BIGINT[] NOT NULL,
    replicas BIGINT[] NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT lease_arrays CHECK (
        cardinality(tasks) = cardinality(attempts) AND cardinality(tasks) = cardinality(tokens)
        AND cardinality(tasks) = cardinality(replicas))
);
CREATE TABLE node (
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    is_cordoned BOOLEAN DEFAULT false NOT NULL,
    cordon_reason TEXT DEFAULT '' NOT NULL,
    drain JSONB,
    cpu_millicores INTEGER DEFAULT 0 NOT NULL,
    memory_mib INTEGER DEFAULT 0 NOT NULL,
    gpus INTEGER DEFAULT 0 NOT NULL,
    labels JSONB DEFAULT '{}' NOT NULL,
    capabilities TEXT[] DEFAULT '{}' NOT NULL,
    products TEXT[] DEFAULT '{}' NOT NULL,
    daemon_version TEXT DEFAULT '' NOT NULL,
    desired_generation BIGINT DEFAULT 0 NOT NULL,
    recent_failures INTEGER DEFAULT 0 NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT node_state CHECK (state IN ('joining', 'ready', 'unreachable', 'lost'))
);
CREATE TABLE replica (
    id BIGINT NOT NULL,
    deployment TEXT NOT NULL,
    seat INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    node TEXT,
    is_retiring BOOLEAN DEFAULT false NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    restarts INTEGER DEFAULT 0 NOT NULL,
    pid INTEGER DEFAULT 0 NOT NULL,
    private_mib INTEGER DEFAULT 0 NOT NULL,
    ready_ms INTEGER DEFAULT 0 NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    not_before TIMESTAMP WITH TIME ZONE,
    served BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT replica_state CHECK (
        state IN ('pending', 'starting', 'running', 'unhealthy', 'stopping', 'stopped', 'failed'))
);
CREATE TABLE secret (
    name TEXT NOT NULL,
    value BYTEA NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE task (
    id BIGINT NOT NULL,
    deployment TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    submitted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    input BYTEA NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    crashes INTEGER DEFAULT 0 NOT NULL,
    not_before TIMESTAMP WITH TIME ZONE,
    is_cancelling BOOLEAN DEFAULT false NOT NULL,
    options JSONB,
    PRIMARY KEY (id),
    CONSTRAINT task_priority CHECK (priority BETWEEN -5 AND 5)
);
CREATE TABLE task_finished (
    id BIGINT NOT NULL,
    deployment TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    submitted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    input BYTEA NOT NULL,
    options JSONB,
    state TEXT NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    crashes INTEGER DEFAULT 0 NOT NULL,
    output BYTEA NOT NULL,
    error_type TEXT,
    error_message TEXT,
    error_traceback TEXT,
    version INTEGER,
    node TEXT,
    replica BIGINT,
    token BIGINT,
    leased_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT task_finished_state CHECK (state IN ('cancelled', 'dead', 'failed', 'succeeded'))
) PARTITION BY RANGE (finished_at);
CREATE INDEX task_finished_deployment ON task_finished (deployment, id);
CREATE INDEX task_finished_id ON task_finished (id);
CREATE INDEX task_finished_unhappy ON task_finished (state, id) WHERE state <> 'succeeded';
CREATE TABLE task_tally (
    day DATE NOT NULL,
    deployment TEXT NOT NULL,
    state TEXT NOT NULL,
    n BIGINT NOT NULL,
    CONSTRAINT task_tally_pkey PRIMARY KEY (day, deployment, state)
);
CREATE TABLE bundle_chunk (
    digest TEXT NOT NULL,
    number INTEGER NOT NULL,
    data BYTEA NOT NULL,
    CONSTRAINT bundle_chunk_pkey PRIMARY KEY (digest, number),
    FOREIGN KEY(digest) REFERENCES bundle (digest) ON DELETE CASCADE
);
CREATE TABLE version (
    deployment TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    spec TEXT NOT NULL,
    policy JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    has_run BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT version_pkey PRIMARY KEY (deployment, number),
    CONSTRAINT version_number CHECK (number > 0),
    FOREIGN KEY(deployment) REFERENCES deployment (name) ON DELETE CASCADE
);
"""

# Rows of these come and go all the time: vacuum by number, not by share; never lock them to give disk back; and leave
# their statistics alone, since the journal's plans are fixed (see commit.py).
CHURN = """
ALTER TABLE task SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
    vacuum_truncate = off
);
ALTER TABLE lease SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
    vacuum_truncate = off
);
"""

# Guards that end a turn inside PostgreSQL, so that a whole turn can be sent at once. The codes are errors.py's.
GUARDS = """
CREATE FUNCTION fence(wanted BIGINT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leader WHERE epoch = wanted FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is over', wanted USING ERRCODE = 'FA001';
    END IF;
END $$;
CREATE FUNCTION expect(counted BIGINT, wanted BIGINT, what TEXT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF counted <> wanted THEN
        RAISE EXCEPTION 'PostgreSQL has % of % %', counted, wanted, what USING ERRCODE = 'FA002';
    END IF;
END $$;
"""

FIRST_ROWS = """
INSERT INTO leader (is_only) VALUES (true);
CREATE TABLE task_finished_default PARTITION OF task_finished DEFAULT;
"""


def upgrade() -> None:
    """Everything the first release keeps."""
    op.execute(TABLES)
    op.execute(CHURN)
    op.execute(GUARDS)
    op.execute(FIRST_ROWS)
