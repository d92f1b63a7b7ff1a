"""The PostgreSQL server behind the journal: the embedded one, supervised by us, or one that already runs.

Both have the same face: `start`, `wait_ready`, `stop` and `dsn`. Nothing here knows a table; that is the journal's.
"""

from controller.postgres.embedded import EmbeddedPostgres
from controller.postgres.external import ExternalPostgres, Postgres

__all__ = ["EmbeddedPostgres", "ExternalPostgres", "Postgres"]
