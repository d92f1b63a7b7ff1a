"""To which place in the capture a database has gone back, told by the transactions that its tables have taken."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nodeagent.market.feed.progress import LINES_MAX, NOTE_EVERY_NS, PAST_NAME, Past, Progress, State
from nodeagent.market.model.records import Position
from nodeagent.market.store.migrate import Database


def stored(place: int, trades: int, ticker: int = 0, identity: str = "first") -> State:
    database = Database(identity, {"trades": trades, "ticker": ticker})
    return State(Position(place), place * NOTE_EVERY_NS, database=database)


def test_a_database_holds_what_none_of_its_tables_has_lost() -> None:
    known = Database("first", {"trades": 5, "ticker": 2})
    assert Database("first", {"trades": 6, "ticker": 2, "book": 1}).holds(known)
    assert not Database("first", {"trades": 9, "ticker": 1}).holds(known), "one table went back further"
    assert not Database("first", {"trades": 9}).holds(known), "one table is new"
    assert not Database("first later", {"trades": 9, "ticker": 9}).holds(known), "a branch of it"


def test_the_newest_place_that_it_holds_is_found_after_a_restart(tmp_path: Path) -> None:
    states = [stored(1, 10), stored(2, 20, 5), stored(3, 30, 5), stored(4, 5, identity="second")]
    for state in states:
        Past(tmp_path).note(state)
    found = Past(tmp_path)
    assert found.newest_in(Database("first", {"trades": 29, "ticker": 9}), ()) == states[1]
    assert found.newest_in(Database("first", {"trades": 29, "ticker": 4}), ()) == states[0]
    assert found.newest_in(Database("second", {"trades": 29}), ()) == states[3]
    assert found.newest_in(Database("third", {"trades": 99, "ticker": 99}), states) is None
    assert found.newest_in(Database("first", {"trades": 99, "ticker": 99}), [stored(9, 50)]) == stored(9, 50)


def test_states_are_noted_now_and_then_and_damaged_lines_cost_themselves_alone(tmp_path: Path) -> None:
    noting = Past(tmp_path)
    noting.note(State(Position(1), 1))
    assert not (tmp_path / PAST_NAME).exists(), "no database has it"
    early = msgspec.structs.replace(stored(2, 20), at_ns=NOTE_EVERY_NS + 1)
    for state in (stored(1, 10), early, stored(2, 20)):
        noting.note(state)
    with (tmp_path / PAST_NAME).open("ab") as file:
        file.write(b'{"position": 7, "da')
    assert len((tmp_path / PAST_NAME).read_bytes().splitlines()) == 3
    assert Past(tmp_path).newest_in(Database("first", {"trades": 99}), ()) == stored(2, 20)


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    lines = [msgspec.json.encode(stored(place, place)) for place in range(1, LINES_MAX + 2)]
    (tmp_path / PAST_NAME).write_bytes(b"\n".join([*lines, b""]))
    noting = Past(tmp_path)
    assert len(noting._lines()) == LINES_MAX // 2
    noting.note(stored(LINES_MAX + 5, LINES_MAX + 5))
    newest = noting.newest_in(Database("first", {"trades": 10**9}), ())
    assert newest == stored(LINES_MAX + 5, LINES_MAX + 5)


def test_what_begins_again_survives_a_power_cut_too() -> None:
    start = stored(3, 30)
    progress = Progress(stored(9, 90), boot_id="one").connected(7).restarted_at(start)
    assert progress.resumed("two")[1] == start
    assert progress.last_connection_id == 7
