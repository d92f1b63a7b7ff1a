"""What is shown of a farm: every node, every agent, the market, and calm lines where no person watches."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from farmctl.dev.screen import LINE_EVERY_S, LineScreen, LiveScreen, Shown, line, picture
from farmctl.dev.snapshot import Glimpse

STATUS: dict[str, Any] = {
    "nodes": [
        {"name": "node-1", "state": "ready", "heard_s_ago": 0.4, "replica_count": 2, "running": 1,
         "measured": {"memory_available_mib": 21050, "market_rows": 12345, "market_state": "live"}},
        {"name": "node-2", "state": "lost", "heard_s_ago": None, "is_cordoned": True, "drain": {"x": 1}},
    ],
    "deployments": [
        {"name": "market-brief", "version": 3, "replicas_running": 1, "replicas_wanted": 2, "queued": 4,
         "service_s": 0.108, "rollout": {"state": "progressing"}, "is_removed": False},
        {"name": "gone", "version": 1, "replicas_running": 0, "replicas_wanted": 1, "queued": 0, "is_removed": True},
    ],
    "replicas": [
        {"deployment": "market-brief", "seat": 0, "node": "node-1", "state": "running"},
        {"deployment": "market-brief", "seat": 1, "node": None, "state": "pending"},
    ],
    "tasks": {"queued": 4, "leased": 0, "running": 1, "succeeded": 1311, "failed": 0, "dead": 2},
    "market": {"state": "live", "rows": 12345},
}  # fmt: skip


def text(shown: Shown) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(picture(shown))
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_the_screen_names_every_node_agent_and_replica() -> None:
    seen = text(Shown(Glimpse(STATUS), "live: Coinbase", "BTC went up.", 1, 97.4))
    for words in ("node-1", "lost cordoned draining", "12,345", "21,050 MiB", "never", "market-brief", "v3", "1/2",
                  "108 ms", "0@node-1 running", "1@? pending", "1,311 succeeded", "2 dead", "97/s", "BTC went up.",
                  "1 restarted", "Ctrl-C"):  # fmt: skip
        assert words in seen, words
    assert "gone" not in seen


def test_a_market_that_failed_says_why() -> None:
    status = {**STATUS, "market": {"state": "failed: no Java", "rows": 0}}
    assert "failed: no Java" in text(Shown(Glimpse(status), "live"))


def test_a_gateway_that_is_away_is_said() -> None:
    assert "away" in text(Shown(None))
    assert line(Shown(None)) == "the gateway is away"


def test_one_line_holds_the_farm() -> None:
    assert line(Shown(Glimpse(STATUS))) == (
        "nodes 1/2 ready · replicas 1 running · tasks 1,311 succeeded, 2 dead, 5 on their way · rows 12,345"
    )


def test_without_a_terminal_there_is_a_line_now_and_then_and_each_brief_once() -> None:
    written, now = io.StringIO(), [0.0]
    screen = LineScreen(Console(file=written, width=200), lambda: now[0])
    for step in range(7):
        now[0] = step * LINE_EVERY_S / 3
        screen.show(Shown(Glimpse(STATUS), brief="BTC went up."))
    lines = written.getvalue().splitlines()
    assert sum("nodes 1/2" in one for one in lines) == 3
    assert lines.count("brief: BTC went up.") == 1


@pytest.mark.parametrize("kind", [LiveScreen, LineScreen])
def test_words_are_printed_as_they_are(kind: type[LiveScreen] | type[LineScreen]) -> None:
    written = io.StringIO()
    with kind(Console(file=written, width=200)) as screen:
        screen.say("[red]not markup[/red]")
    assert "[red]not markup[/red]" in written.getvalue()
