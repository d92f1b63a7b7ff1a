"""Every limit of the HTTP border, by name and unit. A request beyond one is refused with the limit's name and value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

ENVELOPE_MAX_BYTES: Final = 64 * 1024
"""What may stand around an input: agent, labels, keys."""
CONTROL_BODY_MAX_BYTES: Final = 256 * 1024
"""Bodies that carry no payload: deploys, scales, joins."""
BATCH_LINES_MAX: Final = 100_000
"""Lines of one batch submit."""
BATCH_CHUNK_LINES: Final = 1_000
"""Lines of one command to the engine."""
BATCH_CHUNKS_IN_FLIGHT: Final = 4
BATCH_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""A chunk is closed early when its inputs grow this large."""
BATCH_SLICE_S: Final = 0.01
"""Lines are read for so long before others have their turn."""
UNKNOWN_AGENTS_MAX: Final = 100
"""Unknown agents of one batch for which a close name is looked for."""

JSON_DEPTH_MAX: Final = 128
"""Nested arrays and objects."""
PATH_CHARS_MAX: Final = 200
"""Of a place within a body, where an answer names it."""
ERRORS_MAX: Final = 20
"""Wrong keys of one body that an answer names; the others are counted."""
KEY_MAX_CHARS: Final = 255
"""Idempotency keys, thread ids."""
LABELS_MAX: Final = 32
LABEL_MAX_CHARS: Final = 255
FEED_PRODUCTS_MAX: Final = 500
"""Products named in one call."""
TASK_PRODUCTS_MAX: Final = 16
"""Products one task may name."""

WAIT_MAX_S: Final = 300.0
"""One request's wait; longer waits ask again."""
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1_000
LOG_TAIL_DEFAULT: Final = 100
LOG_TAIL_MAX: Final = 10_000
EVENTS_PAGE: Final = 500

SSE_KEEPALIVE_S: Final = 15.0
FEED_NODES_AT_ONCE: Final = 64
"""Nodes that answer one question about market data at the same time."""
HEADERS_MAX: Final = 100
"""Of one request."""
PIPELINE_MAX: Final = 16
"""Requests that wait on one connection behind one that is being answered."""
STREAMS_MAX: Final = 2_000
"""Open at once; each holds a connection and a queue."""
RETRY_AFTER_S: Final = 1
"""Seconds that callers should wait when a dependency is away."""
ENGINE_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What strangers may take of the HTTP server before they are known."""

    head_max_bytes: int = 64 * 1024
    """Of the request line and the headers of one request."""
    head_timeout_s: float = 10.0
    """From a connection's first moment, or a head's first byte, until the head is whole."""
    idle_timeout_s: float = 75.0
    """Without a request, without a further piece of a body, or with an answer that is not read."""
    connections_max: int = 512
    connections_per_address_max: int = 128
    """Except from this machine."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) <= 0:
                raise ValueError(f"{item.name} must be more than 0")
