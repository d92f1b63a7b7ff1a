"""What a feed needs before it can start: its source, the venue's key, its folder for itself alone."""

from __future__ import annotations

import fcntl
import os
from typing import IO

from agentfarm.errors import Conflict
from nodeagent.feed.service.settings import FeedSettings
from nodeagent.feed.source import Signer, Source, load_source


def open_source(settings: FeedSettings) -> Source:
    """The source, at the addresses we were told."""
    source = load_source(settings.source)
    source.websocket_url = settings.ws_url or source.websocket_url
    source.rest_url = settings.rest_url or source.rest_url
    return source


def open_signer(settings: FeedSettings) -> Signer | None:
    """The venue's key, if there is one. Raises InvalidRequest, naming the file."""
    if settings.credentials_file is None:
        return None
    from nodeagent.feed.sources.credentials import read_signer  # noqa: PLC0415 - most feeds need no cryptography

    return read_signer(settings.source, settings.credentials_file)


def lock_folder(folder: os.PathLike[str]) -> IO[str]:
    """One feed a folder. Raises Conflict."""
    file = open(os.path.join(folder, "feed.lock"), "w")  # noqa: SIM115 - held for the process's life
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Conflict(f"Another feed process writes to {folder}.", remedy="Stop it first.") from error
    return file
