"""pre: where each node's metrics are, which was a label before and shared the operators' names."""

from __future__ import annotations

from alembic import op

revision = "0003_pre_metrics_address"
down_revision = "0002_pre_products"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column with a default: code that does not know it goes on."""
    op.execute("ALTER TABLE node ADD COLUMN metrics_address TEXT DEFAULT '' NOT NULL")
