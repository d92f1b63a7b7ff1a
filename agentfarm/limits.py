"""Numbers and words that several parts of the farm state. Each stands here once; the others import it. Pure.

A limit of one part alone stays in that part (those of the HTTP border: controller/gateway/http/limits.py).
"""

from __future__ import annotations

from typing import Final

# ------------------------------------------------------------------ limits

PRIORITY_MIN: Final = -5
PRIORITY_MAX: Final = 5
ATTEMPTS_MAX: Final = 100
"""Attempts that a task may ask for. Tasks stored by 0.1.0 may have more, and keep them."""
REPLICAS_MAX: Final = 10_000
CONCURRENCY_MAX: Final = 1_024
DURATION_MAX_S: Final = 30 * 86_400.0
"""Of every timeout and wait that an agent or a task may ask for."""
PAYLOAD_MAX_BYTES: Final = 2**20
"""One task's input, as JSON: the default of the controller's setting payload_max_bytes."""
BUNDLE_MAX_BYTES: Final = 64 * 2**20
LINK_MESSAGE_MAX_BYTES: Final = 16 * 2**20
"""One message between controller and node; both ends of the link allow as much."""
NAME_CHARS_MAX: Final = 63
"""As long as a DNS label, so that a name can be a host name, a certificate subject and a label value."""
PRODUCT_NAME_CHARS_MAX: Final = 64

# ------------------------------------------------------------------ what PostgreSQL can store, and SQLite on nodes

ID_MAX: Final = 2**63 - 1
"""Of ids and fencing tokens: a bigint."""
COUNT_MAX: Final = 2**31 - 1
"""Of sizes, counts and process ids: an integer."""
NAMESPACE_BYTES_MAX: Final = 1_024
"""Of a checkpoint. With thread, checkpoint and writer it is one key of an index, which holds 2,704 bytes."""
CHECKPOINT_ID_BYTES_MAX: Final = 255
"""Of the ids of checkpoints, of their parents and of writers."""
CHECKPOINT_WRITES_MAX: Final = 10_000
"""In one call."""
WORD_CHARS_MAX: Final = 255
"""Of what a node says in one word: versions, labels, capabilities, reasons."""
WORDS_MAX: Final = 256
"""Labels of a node, and its capabilities."""

# ------------------------------------------------------------------ defaults of an agent's spec

REPLICAS: Final = 1
CONCURRENCY: Final = 1
PRIORITY: Final = 0
CPU_MILLICORES: Final = 100
MEMORY_MIB: Final = 128
ATTEMPTS: Final = 3
BACKOFF_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
RUN_TIMEOUT_S: Final = 600.0
HEALTHY_TIMEOUT_S: Final = 120.0
SHUTDOWN_TIMEOUT_S: Final = 10.0

# ------------------------------------------------------------------ times of the link

BEAT_INTERVAL_S: Final = 1.0
"""The default of the controller's setting; Welcome tells the nodes."""
STOP_EXCLUSIVE_AFTER_S: Final = 6.0
"""The default of the controller's setting; nodeagent/core/lease.py states it for the time before a Welcome."""

# ------------------------------------------------------------------ ports

GATEWAY_PORT: Final = 8600
LINK_PORT: Final = 8601

# ------------------------------------------------------------------ patterns: Python, pydantic and OpenAPI read them

NAME_PATTERN: Final = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""Of nodes, agents and deployments; NAME_CHARS_MAX besides."""
PRODUCT_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$"
"""Of market products, as venues write them; PRODUCT_NAME_CHARS_MAX besides."""
DIGEST_PATTERN: Final = "^sha256:[0-9a-f]{64}$"
"""Of a bundle's name."""

# ------------------------------------------------------------------ words on the wire

GIVEN_BACK: Final = "GivenBack"
"""The error type of an attempt that was given back before it began. The runner, which imports nothing of ours, says it
in nodeagent/runner/protocol/frames.py; a test compares them."""
