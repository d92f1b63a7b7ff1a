"""Download the QuestDB jar by its Maven coordinates: `python -m nodeagent.market.store.fetch TARGET`.

A process of its own, because resolving pulls an HTTP stack into memory that the daemon must not keep. Says how far it
is in NDJSON lines on stdout (`{"done_bytes", "total_bytes"}`, at most ten a second, and `{"failure"}` at a bad end).
Exit: 0 the verified jar stands at TARGET, 1 it cannot be had, 4 its sha256 is not the pinned one.
Several may run at once for one target: one downloads, the others wait and find it done.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentfarm.files import FileLock
from nodeagent.market.store.runtime import COORDINATES, EXIT_WRONG_JAR, is_pinned

EXIT_DONE, EXIT_FAILED = 0, 1
_REPORT_EVERY_S = 0.1


def main(arguments: list[str]) -> int:
    """Fetch to the path in `arguments[0]`."""
    target = Path(arguments[0]).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock", is_waiting=True):
        if target.exists() and is_pinned(target):
            return EXIT_DONE
        try:
            return _fetch(target)
        except Exception as failure:  # whatever the resolver or the network raise, the parent gets one line
            _say(failure=f"{type(failure).__name__}: {failure}")
            return EXIT_FAILED


def _fetch(target: Path) -> int:
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - dear to import, needed only here

    group, artifact, version = COORDINATES
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as staging:
        # An empty repository of its own: a download cut short earlier must not be taken for the jar.
        context = MavenContext(resolver=PythonResolver(progress_callback=_report), repo_cache=Path(staging))
        jar = Path(context.project(group, artifact).at_version(version).artifact().resolve())
        if not is_pinned(jar):
            return EXIT_WRONG_JAR
        jar.replace(target)
    return EXIT_DONE


@contextmanager
def _report(_name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    done_bytes = 0
    said_at_s = 0.0

    def advance(more_bytes: int) -> None:
        nonlocal done_bytes, said_at_s
        done_bytes += more_bytes
        now_s = time.monotonic()
        if now_s - said_at_s >= _REPORT_EVERY_S or done_bytes >= total_bytes:
            said_at_s = now_s
            _say(done_bytes=done_bytes, total_bytes=total_bytes)

    yield advance


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
