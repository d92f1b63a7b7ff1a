"""pre: market products that are assigned across the farm."""

from __future__ import annotations

from alembic import op

revision = "0002_pre_products"
down_revision = "0001_pre_first_tables"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE product (
    name TEXT NOT NULL,
    source TEXT DEFAULT '' NOT NULL,
    copies INTEGER DEFAULT 1 NOT NULL,
    nodes TEXT[] DEFAULT '{}' NOT NULL,
    added_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT product_copies CHECK (copies > 0)
);
ALTER TABLE node ADD COLUMN takes_products BOOLEAN DEFAULT false NOT NULL;
ALTER TABLE node ADD COLUMN market_source TEXT DEFAULT '' NOT NULL;
"""


def upgrade() -> None:
    """A table, and columns with defaults: code that does not know them goes on."""
    op.execute(TABLES)
