"""What the feed process decides: settings, progress, what to give up, how long to wait."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from questdb import QuestDBError, QuestDBErrorCode

from agentfarm.backoff import Backoff
from agentfarm.errors import InvalidRequest
from nodeagent.market.capture.reader import Segment
from nodeagent.market.feed.progress import POWER_CUT_REWIND_S, REWIND_MAX_S, Progress, State, load, save
from nodeagent.market.feed.retention import Disk, Room, disk_state, disk_words, expendable, left_out
from nodeagent.market.feed.settings import FeedSettings
from nodeagent.market.model.records import START, Position, position_of
from nodeagent.market.pipeline.state import Memory
from nodeagent.market.session.websocket import SessionSettings
from nodeagent.market.writer.writer import _is_about_rows
from tests.unit.market.line import exchange

GIB = 1024**3
S = 1_000_000_000


def _settings(**changes: object) -> FeedSettings:
    known: dict[str, object] = {
        "source": "coinbase-advanced",
        "products": ("BTC-USD",),
        "capture_dir": Path("/data/capture"),
        "endpoint_file": Path("/data/endpoint.json"),
        "status_file": Path("/data/status.json"),
    }
    return FeedSettings(**{**known, **changes})  # type: ignore[arg-type]


def test_settings_survive_json() -> None:
    settings = _settings(channels=("trades", "book"), questdb_dir=Path("/q"), connections=2)
    assert FeedSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": ("trade",)}, "channels"),
        ({"connections": 0}, "connections"),
        ({"reconnect_min_s": 0.01}, "reconnect_min_s"),
        ({"reconnect_min_s": 9.0}, "reconnect_min_s"),
        ({"flush_interval_s": 0}, "flush_interval_s"),
    ],
)
def test_setting_that_cannot_work_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        _settings(**changes)


@pytest.mark.parametrize("text", ["{", '{"source": "x"}', '{"colour": "red"}'])
def test_settings_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        FeedSettings.from_json(text)


def _memory() -> Memory:
    line = exchange()
    line.send(line.match(103))
    line.send(line.update(("buy", "150.00", "1"), product="ETH-USD"))
    memory = line.pipeline.state.memory()
    assert [row.kind for row in memory.gaps] == ["book_with_trades", "crossed_book"]
    return memory


def test_progress_survives_the_file_and_a_damaged_one_is_set_aside(tmp_path: Path) -> None:
    progress = Progress(State(Position(5), 7, memory=_memory()), boot_id="b").connected(9)
    save(tmp_path, progress)
    assert load(tmp_path, 100) == progress
    (tmp_path / "progress.json").write_text(json.dumps({"state": "none"}))
    assert load(tmp_path, 100) == Progress(last_connection_id=100)
    assert len(list(tmp_path.glob("progress.json.damaged-*"))) == 1
    assert load(tmp_path, 100).state.replay_after() is None


def test_replay_begins_at_the_connection_if_that_is_near_and_else_at_the_position() -> None:
    near = State(position_of(2, 500), 1000 * S, position_of(2, 10), (1000 - REWIND_MAX_S) * S)
    assert near.replay_after() == position_of(2, 9), "the CONNECT record itself must be read"
    far = State(position_of(2, 500), 1000 * S, position_of(2, 10), (999 - REWIND_MAX_S) * S)
    assert far.replay_after() == position_of(2, 500)


def test_restarted_machine_goes_back_further_than_write_back_could_be_pending() -> None:
    progress = Progress().resumed("boot-1")[0]
    for second in range(0, 1000, 10):
        progress = progress.advanced(State(Position(second + 1), second * S))
    assert progress.resumed("boot-1")[1].at_ns == 990 * S
    older = progress.resumed("boot-2")[1]
    assert 990 * S - older.at_ns >= POWER_CUT_REWIND_S * S
    assert 990 * S - older.at_ns <= 3 * POWER_CUT_REWIND_S * S
    young = Progress().resumed("boot-1")[0].advanced(State(Position(1), 5 * S))
    assert young.resumed("boot-2")[1].position == START, "too young for an older state: everything again"


@pytest.mark.parametrize(
    ("free", "tables"),
    [
        (5 * GIB, set()),
        (1.9 * GIB, {"book_change"}),
        (0.9 * GIB, {"book_change", "ticker"}),
        (0.4 * GIB, {"book_change", "ticker", "book"}),
        (0, {"book_change", "ticker", "book"}),
    ],
)
def test_tables_are_left_out_in_the_named_order_and_never_trades(free: float, tables: set[str]) -> None:
    assert left_out(Room(int(free), 100 * GIB), 2 * GIB) == tables


def test_small_disk_is_not_low_from_the_start() -> None:
    assert left_out(Room(int(1.5 * GIB), 4 * GIB), 2 * GIB) == frozenset()


def _segments(count: int) -> list[Segment]:
    return [Segment(number, Path(f"{number}"), 0, GIB) for number in range(1, count + 1)]


def test_stored_segments_go_oldest_first_and_only_beyond_the_limit() -> None:
    room = Room(50 * GIB, 100 * GIB)
    assert expendable(_segments(5), 99, 10 * GIB, room, 2 * GIB) == []
    assert [s.number for s in expendable(_segments(5), 99, 3 * GIB, room, 2 * GIB)] == [1, 2]


def test_segments_not_yet_stored_and_the_newest_are_never_given_up() -> None:
    full = Room(0, 100 * GIB)
    assert [s.number for s in expendable(_segments(5), 3, 0, full, 2 * GIB)] == [1, 2]
    assert [s.number for s in expendable(_segments(5), 99, 0, full, 2 * GIB)] == [1, 2, 3, 4]


def test_low_disk_gives_up_no_more_than_it_needs() -> None:
    low = Room(GIB // 4, 100 * GIB)
    assert [s.number for s in expendable(_segments(5), 99, 99 * GIB, low, 2 * GIB)] == [1]


def test_waits_grow_are_jittered_and_have_a_cap() -> None:
    settings = SessionSettings(())
    backoffs = [Backoff(settings.reconnect_min_s, settings.reconnect_max_s) for _ in range(200)]
    waits = [[backoff.next_s() for backoff in backoffs] for _ in range(1, 12)]
    for attempt, drawn in enumerate(waits):
        ceiling = min(5.0, 0.25 * 2**attempt)
        assert ceiling / 2 <= min(drawn) < max(drawn) <= ceiling
    assert 1 / min(waits[0]) <= 8, "never more than eight connections a second"


@pytest.mark.parametrize(
    ("code", "said", "is_about_rows"),
    [
        (QuestDBErrorCode.ServerFlushError, '{"code":"invalid","message":"loss of precision","line":3}', True),
        (
            QuestDBErrorCode.ServerFlushError,
            '{"code":"internal error","message":"write error: trades, errno: 28, error: No space left","line":1}',
            False,
        ),
        (QuestDBErrorCode.ServerFlushError, '{"code":"internal error","message":"table is being changed"}', False),
        (QuestDBErrorCode.SocketError, 'connection refused "line"', False),
    ],
)
def test_a_full_disk_is_no_fault_of_the_rows(code: QuestDBErrorCode, said: str, is_about_rows: bool) -> None:
    """Rows that are at fault are set aside; on a full disk that would cost trades."""
    assert _is_about_rows(QuestDBError(code, said)) is is_about_rows


def test_words_for_a_disk_name_what_is_left_out() -> None:
    room = Room(100 * 2**20, 100 * GIB)
    without = left_out(room, 2 * GIB)
    assert disk_state(room, 2 * GIB) is Disk.LOW
    assert disk_words(Disk.LOW, room, without) == ("the disk is low: 100 MiB free; left out: book_change, ticker, book")
    assert disk_state(Room(GIB // 64, 100 * GIB), 2 * GIB) is Disk.FULL
    assert disk_words(disk_state(Room(3 * GIB, 4 * GIB), 2 * GIB), room, frozenset()) == ""
