"""A farm that stays up, until a person stops it: it is shown, gets a gentle load, and what dies is started again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farmctl.dev.farm import DevFarm
from farmctl.dev.market.choice import MarketKind
from farmctl.dev.screen import Screen, Shown
from farmctl.dev.snapshot import Glimpse
from farmctl.dev.stop import Interrupted, StopWish
from farmctl.dev.workload import Rhythm, Workload

BEAT_S: Final = 0.5
RATE_OVER_S: Final = 10.0


def stay_up(farm: DevFarm, agents: Sequence[str], screen: Screen, wish: StopWish) -> None:
    """Until stopping is wished."""
    workload = Workload(farm.client, Rhythm(agents, farm.feeding.products))
    rate = RowRate()
    try:
        while not wish.is_wished:
            farm.keep()
            seen = farm.look()
            now = time.monotonic()
            has_trades = seen is not None and seen.rows > 0 and farm.market.kind is not MarketKind.OFF
            if seen is not None:
                workload.step(now, has_trades)
            screen.show(Shown(seen, farm.market.words, workload.last_brief, farm.restarts, rate.of(seen, now)))
            wish.pause(BEAT_S)
    except Interrupted:
        return


def addresses(farm: DevFarm) -> list[tuple[str, str]]:
    """Where to look and what to try next."""
    server = farm.ports.server
    lines = [("gateway", f"{server}/docs"), ("metrics", f"{server}/metrics")]
    console = farm.feeding.console()
    if console is not None:
        lines.append(("QuestDB", console))
    verbs = [
        "status",
        'task submit question-answering question="What is a lease?" --wait',
        "task submit countdown start=20 --stream",
        "scale question-answering 3",
        "deploy ./my_agent.py",
    ]
    if farm.settings.nodes > 1:
        verbs.insert(-1, f"drain {farm.settings.node_names[-1]}")
    program = program_name()
    lines.append(("logs", str(farm.folder.root / "logs")))
    lines += [("try" if number == 0 else "", f"{program} {verb}") for number, verb in enumerate(verbs)]
    return lines


def program_name() -> str:
    """What a person types: the short name where the shell finds it, else the way it was started."""
    if shutil.which("farmctl") is not None or Path(sys.argv[0]).name != "farmctl":
        return "farmctl"
    return os.path.relpath(sys.argv[0])


class RowRate:
    """Rows a second over the last RATE_OVER_S."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def of(self, seen: Glimpse | None, now_s: float) -> float:
        """The rate with this moment taken in; a feed that began again begins the count again."""
        if seen is None:
            return 0.0
        if self._points and seen.rows < self._points[-1][1]:
            self._points.clear()
        self._points.append((now_s, seen.rows))
        while self._points[0][0] < now_s - RATE_OVER_S:
            self._points.pop(0)
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
