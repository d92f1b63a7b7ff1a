"""pre: who made each event happen."""

from __future__ import annotations

from alembic import op

revision = "0004_pre_event_actor"
down_revision = "0003_pre_metrics_address"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column with a default: code that does not know it goes on."""
    op.execute("ALTER TABLE event ADD COLUMN actor TEXT DEFAULT '' NOT NULL")
