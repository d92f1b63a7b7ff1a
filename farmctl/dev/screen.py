"""What a person sees while the farm runs: a live screen on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from farmctl.dev.snapshot import Glimpse

LINE_EVERY_S: Final = 10.0
BRIEF_CHARS: Final = 400
NODE_STYLES: Final = {"ready": "green", "unreachable": "yellow", "lost": "red", "joining": "cyan"}
REPLICA_STYLES: Final = {"running": "green", "starting": "cyan", "pending": "yellow", "unhealthy": "yellow",
                         "failed": "red"}  # fmt: skip
ENDED_WELL: Final = "succeeded"
ENDED_BADLY: Final = ("failed", "dead")
WAITING: Final = ("queued", "leased", "running")


@dataclass(slots=True)
class Shown:
    """Everything that is on the screen."""

    seen: Glimpse | None
    market: str = ""
    brief: str = ""
    restarts: int = 0
    rows_per_s: float = 0.0


class Screen(Protocol):
    """Where the farm is shown. A context; `say` prints above what is live."""

    def __enter__(self) -> Screen: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, shown: Shown) -> None: ...
    def say(self, text: str) -> None: ...


class LiveScreen:
    """Redraws in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, shown: Shown) -> None:
        """Draw this."""
        self._live.update(picture(shown), refresh=True)

    def say(self, text: str) -> None:
        """Print above."""
        self._live.console.print(Text(text))


class LineScreen:
    """One line every LINE_EVERY_S."""

    def __init__(self, console: Console, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now_s = now_s
        self._next_s = 0.0
        self._brief = ""

    def __enter__(self) -> LineScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def show(self, shown: Shown) -> None:
        """A line when it is time, and each new brief."""
        if self._now_s() < self._next_s:
            return
        self._next_s = self._now_s() + LINE_EVERY_S
        self.say(line(shown))
        if shown.brief and shown.brief != self._brief:
            self._brief = shown.brief
            self.say(f"brief: {shown.brief}")

    def say(self, text: str) -> None:
        """Print."""
        self._console.print(Text(text), soft_wrap=True)


# ------------------------------------------------------------------ pictures


def line(shown: Shown) -> str:
    """The farm in one line."""
    seen = shown.seen
    if seen is None:
        return "the gateway is away"
    tasks = seen.tasks
    ended = ", ".join(f"{tasks[state]:,} {state}" for state in (ENDED_WELL, *ENDED_BADLY) if tasks.get(state))
    waiting = sum(tasks.get(state, 0) for state in WAITING)
    return (
        f"nodes {len(seen.ready_nodes)}/{len(seen.nodes)} ready · replicas {seen.running_replicas} running · "
        f"tasks {ended or 'none ended'}, {waiting} on their way · rows {seen.rows:,}"
    )


def picture(shown: Shown) -> RenderableType:
    """The whole screen."""
    if shown.seen is None:
        return Text("the gateway is away …", style="yellow")
    parts: list[RenderableType] = [
        nodes_table(shown.seen.nodes),
        Text(),
        deployments_table(shown.seen),
        Text(),
        _summary(shown, shown.seen),
    ]
    if shown.brief:
        parts += [Text(), Text("last brief  ", style="bold").append(shown.brief[:BRIEF_CHARS], style="default")]
    return Group(*parts, Text("\nCtrl-C stops the farm", style="dim"))


def nodes_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    """One row a node."""
    table = _table("node", "state", "heard", "replicas", "running", "memory free", "market rows")
    for node in nodes:
        measured = node.get("measured") or {}
        marks = [
            word for word, is_so in (("cordoned", node.get("is_cordoned")), ("draining", node.get("drain"))) if is_so
        ]
        silent_s = node.get("heard_s_ago")
        table.add_row(
            str(node["name"]),
            Text(" ".join([str(node["state"]), *marks]), style=NODE_STYLES.get(str(node["state"]), "")),
            "never" if silent_s is None else f"{silent_s:.1f} s",
            str(node.get("replica_count", 0)),
            str(node.get("running", 0)),
            f"{measured.get('memory_available_mib', 0):,} MiB",
            f"{measured['market_rows']:,}" if measured.get("market_state") else "",
        )
    return table


def deployments_table(seen: Glimpse) -> Table:
    """One row a deployment, with its replicas and where they run."""
    table = _table("agent", "version", "running", "queued", "takes", "replicas")
    for one in seen.deployments:
        replicas = Text()
        for replica in seen.replicas:
            if replica["deployment"] == one["name"]:
                words = f"{replica['seat']}@{replica.get('node') or '?'} {replica['state']}  "
                replicas.append(words, style=REPLICA_STYLES.get(str(replica["state"]), "dim"))
        takes_s = one.get("service_s")
        table.add_row(
            str(one["name"]),
            f"v{one['version']}",
            f"{one['replicas_running']}/{one['replicas_wanted']}",
            str(one["queued"]),
            "" if takes_s is None else f"{takes_s * 1000:,.0f} ms",
            replicas,
        )
    return table


def _summary(shown: Shown, seen: Glimpse) -> Text:
    tasks = seen.tasks
    text = Text()
    text.append("tasks       ", style="bold")
    for state in (*WAITING, ENDED_WELL, *ENDED_BADLY, "cancelled"):
        style = "green" if state == ENDED_WELL else "red" if state in ENDED_BADLY and tasks.get(state) else ""
        text.append(f"{tasks.get(state, 0):,} {state}   ", style=style)
    text.append("\nmarket data ", style="bold").append(shown.market)
    failed = seen.market_failure
    if failed:
        text.append(f" — failed: {failed}", style="red")
    elif seen.rows:
        text.append(f" — {seen.rows:,} rows, {shown.rows_per_s:,.0f}/s")
    if shown.restarts:
        text.append(f"\n{shown.restarts} restarted", style="yellow")
    return text


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in columns:
        right = column in ("heard", "running", "queued", "takes", "memory free", "market rows")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "replicas")
    return table
