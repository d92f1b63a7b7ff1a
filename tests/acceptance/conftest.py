"""Farms shared by the tests of this folder: starting one costs more than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.farms import Farm, processes_of


@pytest.fixture(scope="package")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Three nodes, no market data. Its end is tested too: it must leave nothing."""
    made = Farm(tmp_path_factory.mktemp("farm"), "--market", "off")
    try:
        yield made
        assert made.stop() == 0, made.words
        assert not processes_of(made.folder)
    finally:
        made.end()
