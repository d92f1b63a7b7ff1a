"""Run one feed: `python -m nodeagent.market.feed --config FILE.json`.

SIGHUP: the settings are read again, and the products changed to what they say, without disturbing the others.
Exit: 0 after SIGTERM or SIGINT, everything stored or safe in the capture; 1 a part of the feed died (start it again);
5 the settings or the folder cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from agentfarm.errors import FarmError
from agentfarm.service import Tasks
from nodeagent.market.feed.feed import Feed
from nodeagent.market.feed.settings import FeedSettings

EXIT_DIED, EXIT_UNUSABLE = 1, 5

log = structlog.get_logger("feed")


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m nodeagent.market.feed", description="One market data feed.")
    parser.add_argument("--config", type=Path, required=True, help="settings as FeedSettings.to_json writes them")
    options = parser.parse_args(arguments)
    _set_up_logging()
    try:
        return asyncio.run(_serve(options.config))
    except (FarmError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE


async def _serve(config: Path) -> int:
    ended = asyncio.Event()
    is_told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, is_told.set)  # before they are read: no change goes unseen
    feed = Feed(FeedSettings.from_json(config.read_bytes()))
    await feed.start()
    feed.failed.add_done_callback(lambda _: ended.set())
    listening = Tasks("settings", feed.died)
    listening.run(_listen(feed, config, is_told))
    await ended.wait()
    await listening.end()
    await feed.stop()
    if feed.failed.done():
        log.error("feed.died", exc_info=feed.failed.result())
        return EXIT_DIED
    return 0


async def _listen(feed: Feed, config: Path, is_told: asyncio.Event) -> None:
    """At each SIGHUP read the settings again. Products change at once; for anything else the feed must be restarted."""
    while True:
        await is_told.wait()
        is_told.clear()
        try:
            fresh = FeedSettings.from_json(config.read_bytes())
        except (FarmError, OSError) as error:
            log.warning("feed.settings_not_read", problem=str(error))
            continue
        if replace(fresh, products=feed.settings.products) != feed.settings:
            log.warning("feed.settings_need_a_restart")
        feed.follow(fresh.products)


def _set_up_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(_Lines()),  # type: ignore[arg-type]  # as much as it uses
    )


class _Lines:
    """Standard error, which may be a file on a full disk: a line that cannot be written must not end the feed."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Each line was written at once."""


if __name__ == "__main__":
    sys.exit(main())
