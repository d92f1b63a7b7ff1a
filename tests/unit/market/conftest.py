"""Where the recordings are, and how tests get at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.market.recordings import RECORDINGS


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded market data; tests that need it are skipped where it is absent."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"the recorded market data is not at {RECORDINGS}")
    return RECORDINGS
