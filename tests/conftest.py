"""For every test: property tests are judged by what they find, never by how fast this machine was meanwhile; and what
takes longest begins first, so that no worker is left alone with it at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")

SLOWEST_FIRST: Final = ("acceptance", "integration/market", "integration/node", "simulation", "integration", "unit")
"""Folders: whole farms, then single servers and daemons, then what is over in an instant."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by folder. Within a folder they stay together, and so do the servers that they share."""
    items.sort(key=lambda item: _rank(item.path.relative_to(Path(__file__).parent).as_posix()))


def _rank(path: str) -> int:
    return next(
        (rank for rank, folder in enumerate(SLOWEST_FIRST) if path.startswith(f"{folder}/")), len(SLOWEST_FIRST)
    )
