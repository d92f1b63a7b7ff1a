"""Alembic runs this file. It never makes a connection of its own: `migrate` hands it one that holds the lock."""

from __future__ import annotations

from alembic import context

from controller.journal.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
