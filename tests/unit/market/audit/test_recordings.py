"""Real recordings of both Coinbase feeds, held against themselves and each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentfarm.errors import InvalidRequest
from nodeagent.market.audit.compare import compare
from nodeagent.market.audit.verify import verify
from tests.unit.market.recordings import ADVANCED, EXCHANGE_2021, EXCHANGE_2026, RECORDINGS

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"the recorded captures are not here: {RECORDINGS}")


class Told:
    """What was told, progress left out."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        if event != "progress":
            self.lines.append((event, facts))

    def of(self, event: str) -> dict[str, Mapping[str, Any]]:
        return {str(facts.get("product", "")): facts for name, facts in self.lines if name == event}


@pytest.mark.parametrize(("name", "products"), [(ADVANCED, 2), (EXCHANGE_2021, 10)])
def test_a_clean_recording_has_every_trade(name: str, products: int) -> None:
    told = Told()
    assert verify(RECORDINGS / name, None, told)
    found = told.of("product")
    assert len(found) == products
    assert all(one["missing"] == 0 and one["stored"] is None and one["captured"] > 0 for one in found.values())
    assert told.of("done")[""]["damages"] == []


def test_a_recording_agrees_with_itself_and_with_none_of_another_day() -> None:
    told = Told()
    assert compare(RECORDINGS / ADVANCED, RECORDINGS / ADVANCED, told, product="BTC-USD")
    agreement = told.of("agreement")["BTC-USD"]
    assert (agreement["common"], agreement["mid_max_bps"]) == (139, 0.0)
    assert agreement["seconds"] == agreement["equal_mids"] > 10
    told = Told()
    assert not compare(RECORDINGS / ADVANCED, RECORDINGS / EXCHANGE_2026, told)
    assert {one["common"] for one in told.of("agreement").values()} == {0}


def test_a_product_that_neither_has_is_no_question(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no product in common called DOGE-USD"):
        compare(RECORDINGS / ADVANCED, RECORDINGS / ADVANCED, Told(), product="DOGE-USD")
    with pytest.raises(InvalidRequest, match="There is no"):
        verify(tmp_path / "none", None, Told())
