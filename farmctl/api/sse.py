"""Server-sent events, read (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is that of the last event that had one."""

    event: str
    data: str
    id: str = ""


def read_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Events out of lines without their ends. Comments are left out; an unfinished event at the end too."""
    kind, last_id = "", ""
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        if not line:
            if data or kind:
                yield ServerEvent(kind or "message", "\n".join(data), last_id)
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value
