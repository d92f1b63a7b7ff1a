"""A recording in place of a connection: the same facts, under numbers of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentfarm.errors import InvalidRequest
from nodeagent.market.capture.writer import CaptureWriter
from nodeagent.market.feed.needs import open_source
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.model.records import Connected, Record, RecordKind, RestAnswer
from nodeagent.market.model.source import Channel, Purpose, RestRequest, load_source
from nodeagent.market.session import recording as recorded_session
from nodeagent.market.session.recording import RecordedSession
from nodeagent.market.venues.recording import Capture

PRODUCTS = ("BTC-USD", "ETH-USD")


def match(trade_id: int, product: str = "BTC-USD", second: int = 0) -> bytes:
    return json.dumps({
        "type": "match", "trade_id": trade_id, "side": "buy", "size": "1", "price": "2", "product_id": product,
        "sequence": trade_id, "time": f"2026-07-07T00:00:{second:02}.000000Z", "maker_order_id": "a",
        "taker_order_id": "b",
    }).encode()  # fmt: skip


class Taken:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.facts: list[tuple[RecordKind, int, bytes]] = []

    async def settled(self) -> None:
        """Nothing ever waits here."""

    def take(self, kind: RecordKind, connection_id: int, payload: bytes) -> None:
        self.facts.append((kind, connection_id, payload))

    def kinds(self) -> list[tuple[str, int]]:
        return [(kind.name, number) for kind, number, _ in self.facts]


def frames(path: Path, *payloads: bytes) -> Path:
    path.write_bytes(b"".join(payload + b"\n" for payload in payloads))
    return path


def played(path: Path, speed: float = 0.0, products: Sequence[str] = PRODUCTS) -> tuple[RecordedSession, Taken]:
    source, taken, numbers = Capture(), Taken(), iter(range(100, 200))
    source.open(path)
    return RecordedSession(source, products, (Channel.TRADES,), taken, lambda: next(numbers), speed), taken


@pytest.fixture(autouse=True)
def _no_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_session, "LAST_SECOND_S", 0.0)


async def play(session: RecordedSession) -> None:
    """To its end."""
    task = asyncio.ensure_future(session.run())
    async with asyncio.timeout(5):
        while session.problem in ("", "not begun yet"):  # noqa: ASYNC110 - it announces its end to people only
            await asyncio.sleep(0)
    task.cancel()


async def test_frames_without_a_connection_get_one_and_the_end_is_said(tmp_path: Path) -> None:
    session, taken = played(frames(tmp_path / "r.jsonl", match(1), match(2, "ETH-USD")))
    await play(session)
    assert taken.kinds() == [("CONNECT", 100), ("RECEIVED", 100), ("RECEIVED", 100), ("DISCONNECT", 100)]
    opened = msgspec.json.decode(taken.facts[0][2], type=Connected)
    assert (opened.source, opened.products, opened.channels) == ("coinbase-exchange", PRODUCTS, ("trades",))
    assert session.is_over
    assert not session.is_connected
    assert session.problem == "the recording is over: 2 records"


async def test_a_capture_of_ours_keeps_its_connections_and_answers_under_new_numbers(tmp_path: Path) -> None:
    opened = msgspec.json.encode(Connected("coinbase-exchange", "wss://there", ("BTC-USD",), ("trades", "book")))
    request = RestRequest(Purpose.BOOK_CHECK, "https://there", "BTC-USD", connection_id=7)
    said = [
        (RecordKind.TICK, 0, b""), (RecordKind.CONNECT, 7, opened), (RecordKind.RECEIVED, 7, match(1)),
        (RecordKind.REST, 7, RestAnswer(request, 200, b"{}").encode()), (RecordKind.DISCONNECT, 7, b"gone"),
        (RecordKind.CONNECT, 8, opened), (RecordKind.RECEIVED, 8, match(2)),
    ]  # fmt: skip
    writer = CaptureWriter(tmp_path / "capture")
    for number, (kind, connection, payload) in enumerate(said, 1):
        writer.append(Record(kind, connection, number * 10**9, number, payload))
    writer.close()
    session, taken = played(tmp_path / "capture")
    await play(session)
    assert taken.kinds() == [
        ("CONNECT", 100), ("RECEIVED", 100), ("REST", 100), ("DISCONNECT", 100), ("CONNECT", 101), ("RECEIVED", 101),
        ("DISCONNECT", 101),
    ]  # fmt: skip
    assert RestAnswer.decode(taken.facts[2][2]).request.connection_id == 100
    assert msgspec.json.decode(taken.facts[0][2], type=Connected).channels == ("trades", "book")


async def test_it_is_played_at_the_pace_it_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await turn(0)

    turn = asyncio.sleep
    path = frames(tmp_path / "r.jsonl", match(1), match(2, second=1), match(3, second=1), match(4, second=59))
    session, _ = played(path, speed=2.0, products=("BTC-USD",))
    monkeypatch.setattr(asyncio, "sleep", wait)
    await play(session)
    assert [seconds for seconds in waits if seconds] == [0.5, 5.0]


def test_products_must_be_those_of_the_recording(tmp_path: Path) -> None:
    source = Capture()
    source.open(frames(tmp_path / "r.jsonl", match(1), match(2, "ETH-USD")))
    source.check_products(PRODUCTS)
    with pytest.raises(InvalidRequest, match="also holds ETH-USD"):
        source.check_products(("BTC-USD",))
    with pytest.raises(InvalidRequest, match="holds no BTC-USDT") as refused:
        source.check_products((*PRODUCTS, "BTC-USDT"))
    assert "BTC-USD" in refused.value.remedy


def settings(**more: Any) -> FeedSettings:
    here = Path("here")
    given: dict[str, Any] = {
        "source": "capture", "products": PRODUCTS, "capture_dir": here, "endpoint_file": here, "status_file": here,
    }  # fmt: skip
    return FeedSettings(**{**given, **more})


def test_settings_name_what_does_not_go_together(tmp_path: Path) -> None:
    for wrong in ({}, {"recording": tmp_path, "source": "binance"}, {"recording": tmp_path, "connections": 2},
                  {"recording": tmp_path, "speed": -1.0}):  # fmt: skip
        with pytest.raises(InvalidRequest):
            settings(**wrong)
    good = settings(recording=tmp_path / "none.gz", speed=4.0)
    assert FeedSettings.from_json(good.to_json()) == good
    with pytest.raises(InvalidRequest, match="There is no recording"):
        open_source(good)


def test_nobody_is_asked_about_a_recording(tmp_path: Path) -> None:
    opened = open_source(settings(recording=frames(tmp_path / "r", match(1), match(2, "ETH-USD"))))
    assert opened.instruments_request() is None
    assert opened.book_request("BTC-USD", Purpose.BOOK_CHECK) is None
    assert opened.venue == "coinbase"
    with pytest.raises(InvalidRequest, match="plays a recording"):
        _ = load_source("capture").venue
