"""Run one feed: `python -m nodeagent.feed.service --config FILE.json`.

Exit: 0 after SIGTERM or SIGINT, everything stored or safe in the capture; 1 a part of the feed died (start it again);
5 the settings or the folder cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import structlog

from agentfarm.errors import FarmError
from nodeagent.feed.service.feed import Feed
from nodeagent.feed.service.settings import FeedSettings

EXIT_DIED, EXIT_UNUSABLE = 1, 5


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m nodeagent.feed.service", description="One market data feed.")
    parser.add_argument("--config", type=Path, required=True, help="settings as FeedSettings.to_json writes them")
    options = parser.parse_args(arguments)
    _set_up_logging()
    try:
        settings = FeedSettings.from_json(options.config.read_bytes())
        return asyncio.run(_serve(settings))
    except (FarmError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE


async def _serve(settings: FeedSettings) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    feed = Feed(settings)
    await feed.start()
    feed.failed.add_done_callback(lambda _: ended.set())
    await ended.wait()
    await feed.stop()
    if feed.failed.done():
        structlog.get_logger("feed").error("feed.died", exc_info=feed.failed.result())
        return EXIT_DIED
    return 0


def _set_up_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
