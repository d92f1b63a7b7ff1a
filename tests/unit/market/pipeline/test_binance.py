"""Where Binance differs: books join a REST snapshot, answers name only an id, questions have weights."""

from __future__ import annotations

import json
from typing import Any

from nodeagent.market.model.decimals import scaled
from nodeagent.market.model.events import GapKind, VenueError
from nodeagent.market.model.rows import GapRow
from nodeagent.market.model.source import Channel, Purpose, TradeHole
from nodeagent.market.model.times import MS_NS
from nodeagent.market.venues.binance.source import Binance
from tests.unit.market.line import Line

CHANNELS = ("trades", "book", "ticker")
SYMBOL = "BTCUSDT"


def _line(*products: str) -> Line:
    line = Line(Binance(), products or [SYMBOL])
    line.connect(channels=CHANNELS)
    return line


def _depth(line: Line, first: int, last: int, *bids: tuple[str, str], product: str = SYMBOL) -> dict[str, Any]:
    data = {"e": "depthUpdate", "E": line.now_ns // MS_NS, "s": product, "U": first, "u": last, "b": bids, "a": []}
    return {"stream": f"{product.lower()}@depth@100ms", "data": data}


def _snapshot(last_update_id: int, **levels: str) -> dict[str, Any]:
    return {"lastUpdateId": last_update_id, "bids": [["99.0", "2"]], "asks": [["101.0", "1"]]} | levels


def _bids(line: Line) -> dict[int, int]:
    return line.pipeline.state.connections[1].books[SYMBOL].book.bids


def test_a_snapshot_is_asked_for_when_a_change_waits_for_it() -> None:
    line = _line()
    assert line.due() == [], "the stream may begin after the snapshot, and what lies between would be lost"
    line.send(_depth(line, 100, 104, ("98.0", "1")))
    assert [request.purpose for request in line.due()] == [Purpose.BOOK_REPAIR]


def test_a_book_in_which_nothing_changes_is_asked_for_all_the_same() -> None:
    line = _line()
    assert [request.purpose for request in line.due(after_s=6)] == [Purpose.BOOK_REPAIR]


def test_a_snapshot_older_than_the_first_change_is_not_taken_and_no_gap() -> None:
    line = _line()
    line.send(_depth(line, 100, 104, ("98.0", "1")))
    line.send(_depth(line, 105, 106, ("97.0", "1")))
    (request,) = line.due()
    line.answer(request, _snapshot(98))
    assert not line.is_synced(SYMBOL)
    (request,) = line.due(after_s=6)
    line.answer(request, _snapshot(99))
    assert line.is_synced(SYMBOL)
    assert _bids(line) == {scaled("99"): scaled("2"), scaled("98"): scaled("1"), scaled("97"): scaled("1")}
    assert [row for row in line.rows if isinstance(row, GapRow)] == []


def test_changes_after_a_hole_wait_for_the_snapshot_that_covers_it() -> None:
    line = _line()
    for first, last, price in ((100, 104, "98.0"), (108, 109, "97.0"), (110, 111, "96.0")):
        line.send(_depth(line, first, last, (price, "1")))
    (request,) = line.due()
    line.answer(request, _snapshot(102))
    assert not line.is_synced(SYMBOL)
    (request,) = line.due(after_s=6)
    line.answer(request, _snapshot(107))
    assert line.is_synced(SYMBOL)
    assert _bids(line) == {scaled("99"): scaled("2"), scaled("97"): scaled("1"), scaled("96"): scaled("1")}
    line.send(_depth(line, 112, 112, ("95.0", "1")))
    assert line.is_synced(SYMBOL)


def test_changes_that_came_late_are_joined_in_their_order() -> None:
    line = _line()
    line.send(_depth(line, 103, 104, ("98.0", "5")))
    line.send(_depth(line, 100, 102, ("98.0", "1")))
    (request,) = line.due()
    line.answer(request, _snapshot(99))
    assert line.is_synced(SYMBOL)
    assert _bids(line)[scaled("98")] == scaled("5")


def test_an_answer_to_a_lone_question_is_about_that_product_alone() -> None:
    line = _line("AUSDT", "BUSDT")
    waiting = line.pipeline.state.connections[1].subscriptions.waiting
    line.send({"result": None, "id": "AUSDT"})
    assert set(waiting) == {"BUSDT"}
    line.send({"error": {"code": 2, "msg": "Invalid request"}, "id": "BUSDT"})
    assert waiting["BUSDT"].refusal == "BUSDT: Invalid request"
    line.send({"result": None, "id": 2})
    assert set(waiting) == {"BUSDT"}, "that was the answer to UNSUBSCRIBE"
    line.send({"result": None, "id": 1})
    assert not waiting


def test_both_forms_of_an_error_are_read() -> None:
    source = Binance()
    for text in (b'{"code":2,"msg":"Invalid request"}', b'{"error":{"code":2,"msg":"Invalid request"},"id":1}'):
        assert source.parse(text, 0).events == [VenueError("Invalid request")]


def test_a_server_that_shuts_down_is_nothing_unknown_and_no_damage() -> None:
    parsed = Binance().parse(b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', 0)
    assert (parsed.events, parsed.rejects, parsed.unknown_type) == ([], [], "")


def test_a_damaged_frame_costs_no_book_because_the_next_number_tells() -> None:
    line = _line()
    line.send(_depth(line, 100, 104, ("98.0", "1")))
    (request,) = line.due()
    line.answer(request, _snapshot(104))
    line.send(b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpd')
    assert line.is_synced(SYMBOL)
    line.send(_depth(line, 107, 108, ("98.0", "1")))
    assert [(g.first_id, g.last_id) for g in line.gaps(GapKind.BOOK_SEQUENCE)] == [(105, 106)]
    assert not line.is_synced(SYMBOL)


def test_a_question_that_may_not_be_put_does_not_count_as_put() -> None:
    line = _line()
    line.send(_depth(line, 100, 104, ("98.0", "1")))
    assert line.pipeline.due(line.now_ns, may_ask=False) == []
    assert [request.purpose for request in line.due()] == [Purpose.BOOK_REPAIR]


def test_questions_cost_their_weight_and_a_minute_of_them_is_below_the_limit() -> None:
    source = Binance()
    repair, check = (source.book_request(SYMBOL, purpose) for purpose in (Purpose.BOOK_REPAIR, Purpose.BOOK_CHECK))
    trades, rules = source.trades_request(TradeHole(SYMBOL, 1, 2)), source.instruments_request()
    assert [source.rest_cost(request) for request in (repair, check, trades, rules) if request] == [250, 50, 25, 20]
    assert check is not None
    assert check.url.endswith("limit=1000")
    assert source.rest_budget.burst + 60 * source.rest_budget.per_s <= 6000
    assert 2 * source.messages_per_s <= 5 - 1, "in any second, with a PONG"


def test_unsubscribing_is_told_apart_by_its_id() -> None:
    (message,) = Binance().unsubscribe([SYMBOL], [Channel.TRADES])
    assert json.loads(message) == {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2}
