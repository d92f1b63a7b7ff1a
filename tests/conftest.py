"""For every test: property tests are judged by what they find, never by how fast this machine was meanwhile.

And how `make test` deals the tests out. Files stay together, because their tests share servers; the acceptance files
that share a farm stay together too, because there must be no second one. Whole farms keep a core busy, while tests of
one server mostly wait for it: so the two kinds take turns, and what is over in an instant fills up the end.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")

BUSY: Final = ("tests/acceptance/", "tests/simulation/")
WAITING: Final = ("tests/integration/market/", "tests/integration/node/")
SHARED_FARM: Final = "the farm of tests/acceptance"
SHARES_THE_FARM: Final = tuple(
    f"tests/acceptance/test_{name}.py" for name in ("getting_started", "kills", "parked", "verbs")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order what is dealt out; each worker collects for itself, and all must come to the same order."""
    parts = list(dict.fromkeys(_part_of(item.nodeid) for item in items))
    busy = [SHARED_FARM, *(part for part in parts if part.startswith(BUSY))]
    waiting = [part for part in parts if part.startswith(WAITING)]
    turns = [part for part in chain.from_iterable(zip_longest(busy, waiting)) if part is not None]
    order = {part: place for place, part in enumerate(dict.fromkeys((*turns, *parts)))}
    items.sort(key=lambda item: order[_part_of(item.nodeid)])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Deal out whole parts."""
    return _PartScheduling(config, log)


class _PartScheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _part_of(nodeid)


def _part_of(nodeid: str) -> str:
    file = nodeid.split("::", 1)[0]
    return SHARED_FARM if file in SHARES_THE_FARM else file
