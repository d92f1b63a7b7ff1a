"""Fixtures every integration test may use."""

from tests.integration.postgres_fixture import database_url, empty_database_url, postgres_server

__all__ = ["database_url", "empty_database_url", "postgres_server"]
