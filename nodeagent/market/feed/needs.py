"""What a feed needs before it can start: its source, the venue's key, its folder for itself alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from agentfarm.errors import Conflict
from agentfarm.files import FileLock, Locked
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.model.source import Channel, Signer, Source, load_source
from nodeagent.market.session.recording import RecordedSession
from nodeagent.market.session.websocket import FeedSession, SessionSettings, Sink
from nodeagent.market.venues.recording import Capture


def open_source(settings: FeedSettings) -> Source:
    """The source, at the addresses of the settings."""
    source = load_source(settings.source)
    if isinstance(source, Capture):
        assert settings.recording is not None  # the settings require it
        source.open(settings.recording)
        source.check_products(settings.products)
        return cast("Source", source)
    source.websocket_url = settings.ws_url or source.websocket_url
    source.rest_url = settings.rest_url or source.rest_url
    return source


def open_session(
    source: Source, settings: FeedSettings, sink: Sink, next_connection_id: Callable[[], int], signer: Signer | None
) -> FeedSession | RecordedSession:
    """What brings the source's frames: a connection, or a recording played in its place."""
    channels = tuple(Channel(name) for name in settings.channels) or source.default_channels
    if isinstance(source, Capture):
        return RecordedSession(source, settings.products, channels, sink, next_connection_id, settings.speed)
    how = SessionSettings(channels, settings.reconnect_min_s, settings.reconnect_max_s, settings.silence_max_s or None)
    return FeedSession(source, how, sink, next_connection_id, signer, products=settings.products)


def open_signer(settings: FeedSettings) -> Signer | None:
    """The venue's key, if there is one. Raises InvalidRequest, naming the file."""
    if settings.credentials_file is None:
        return None
    from nodeagent.market.venues.credentials import read_signer  # noqa: PLC0415 - most feeds need no cryptography

    return read_signer(settings.source, settings.credentials_file)


def lock_folder(folder: Path) -> FileLock:
    """One feed a folder. Raises Conflict."""
    try:
        return FileLock(folder / "feed.lock")
    except Locked as error:
        raise Conflict(f"Another feed process writes to {folder}.", remedy="Stop it first.") from error
