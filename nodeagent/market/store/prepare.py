"""See that QuestDB can run on this machine, downloading what is missing: `python -m nodeagent.market.store.prepare`.

For programs that start daemons and want to tell a person what takes long, and what is missing, before they do.
Says on stdout, in NDJSON: `{"done_bytes", "total_bytes"}` while downloading, then either `{"java", "jar"}` and exit 0,
or `{"problem", "remedy"}` and exit 1.
"""

from __future__ import annotations

import asyncio
import json
import sys

from nodeagent.market.store.runtime import DownloadProgress, MarketDataUnavailable, obtain_runtime


def main() -> int:
    """Prepare; 0 when QuestDB can be started."""
    try:
        runtime = asyncio.run(obtain_runtime(on_progress=_tell))
    except MarketDataUnavailable as failure:
        _say(problem=failure.problem, remedy=failure.remedy)
        return 1
    _say(java=str(runtime.java.path), jar=str(runtime.jar))
    return 0


def _tell(progress: DownloadProgress) -> None:
    _say(done_bytes=progress.done_bytes, total_bytes=progress.total_bytes)


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
