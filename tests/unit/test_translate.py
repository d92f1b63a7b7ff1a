"""What nodes say on the wire, and what they are told: market products, also of nodes of 0.1, and attempts' outputs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from controller.core.commands import AttemptResult, MarketReported, NodeBeat
from controller.core.lives import Outcome, ProductState
from controller.core.model import Limits, Measured, NodeName, ProductName, ProductStatus, TaskId, Token
from controller.core.transition import SetDesired
from controller.link import release_0_1, translate
from controller.link.server import LinkPorts, LinkServer, LinkSettings
from controller.link.sessions import Sessions

N1 = NodeName("n1")
MEASURED = wire.Measured(memory_available_mib=5, cpu_used_millicores=6, disk_free_mib=7)
MARKET_MEASURED = market_pb2.MarketMeasured(state="live", rows=8, lag_ms=9)
BOTH = Measured(5, 6, 7, 8, 9, "live")
OLD = wire.Measured(
    memory_available_mib=5, cpu_used_millicores=6, disk_free_mib=7, market_rows=8, market_lag_ms=9, market_state="live"
)


def hello(market: market_pb2.MarketHello) -> wire.Hello:
    services = [wire.ServiceHello(name="market", payload=market.SerializeToString()), wire.ServiceHello(name="newer")]
    return wire.Hello(has_services=True, measured=MEASURED, services=services)


def beat(report: market_pb2.MarketReport) -> wire.Beat:
    services = [wire.ServiceReport(name="newer"), wire.ServiceReport(name="market", payload=report.SerializeToString())]
    return wire.Beat(seq=4, measured=MEASURED, services=services)


def test_hello_says_whether_a_feed_takes_products() -> None:
    old = translate.joined(N1, 1, hello(market_pb2.MarketHello(products=["BTC-USD"])))
    assert (old.products, old.takes_products, old.market_source) == (frozenset({"BTC-USD"}), False, "")
    new = translate.joined(
        N1, 1, hello(market_pb2.MarketHello(takes_products=True, source="coinbase-advanced", measured=MARKET_MEASURED))
    )
    assert (new.takes_products, new.market_source, new.measured) == (True, "coinbase-advanced", BOTH)
    none = translate.joined(N1, 1, wire.Hello(has_services=True))
    assert (none.products, none.takes_products, none.market_source, none.measured) == (frozenset(), False, "", None)


def test_report_of_a_newer_daemon_is_not_taken_for_good() -> None:
    report = market_pb2.MarketReport(measured=MARKET_MEASURED)
    for number, name in enumerate(("unspecified", "starting", "good", "doubtful", "failed", "newer")):
        report.products.add(product=name, state=number, reason=f"why {name}")
    commands = list(translate.beat(N1, 3, beat(report)))
    assert commands[0] == NodeBeat(N1, 3, 4, BOTH)
    assert len(commands) == 2
    assert isinstance(commands[1], MarketReported)
    assert (commands[1].node, commands[1].session) == (N1, 3)
    assert {name: status.state for name, status in commands[1].products.items()} == {
        "unspecified": ProductState.DOUBTFUL,
        "starting": ProductState.STARTING,
        "good": ProductState.GOOD,
        "doubtful": ProductState.DOUBTFUL,
        "failed": ProductState.FAILED,
        "newer": ProductState.DOUBTFUL,
    }
    assert commands[1].products["failed"] == ProductStatus(ProductState.FAILED, "why failed")
    assert release_0_1.market_reported(N1, 3, report) == commands[1]


def test_report_without_change_is_a_beat_alone() -> None:
    report = market_pb2.MarketReport(products_unchanged=True, measured=MARKET_MEASURED)
    assert list(translate.beat(N1, 3, beat(report))) == [NodeBeat(N1, 3, 4, BOTH)]
    emptied = list(translate.beat(N1, 3, beat(market_pb2.MarketReport())))
    assert emptied[1:] == [MarketReported(N1, 3, {})], "the feed serves nothing any more"


def test_list_tells_products_to_those_who_take_them_alone() -> None:
    named = translate.message(SetDesired(N1, 1, 7, [], (ProductName("BTC-USD"),)))
    nothing = translate.message(SetDesired(N1, 1, 7, [], ()))
    silent = translate.message(SetDesired(N1, 1, 7, []))
    assert named is not None
    assert nothing is not None
    assert silent is not None
    assert [item.name for item in named.desired.services] == ["market"]
    desired = market_pb2.MarketDesired.FromString(named.desired.services[0].payload)
    assert list(desired.products) == ["BTC-USD"]
    assert len(nothing.desired.services) == 1, "an empty list takes products away"
    assert not silent.desired.services
    for message in (named, nothing, silent):
        assert not message.desired.HasField("market")
        release_0_1.desired(message.desired)
    assert list(named.desired.market.products) == ["BTC-USD"]
    assert nothing.desired.HasField("market")
    assert not silent.desired.HasField("market")


def test_a_node_of_0_1_is_understood_as_it_was() -> None:
    greeting = wire.Hello(products=["BTC-USD"], takes_products=True, market_source="coinbase-advanced", measured=OLD)
    command = translate.joined(N1, 1, release_0_1.hello(greeting))
    assert (command.products, command.takes_products, command.market_source, command.measured) == (
        frozenset({"BTC-USD"}), True, "coinbase-advanced", BOTH,
    )  # fmt: skip
    assert list(translate.beat(N1, 1, release_0_1.beat(wire.Beat(seq=4, measured=OLD)))) == [NodeBeat(N1, 1, 4, BOTH)]


def test_what_a_node_of_this_release_says_in_the_words_of_0_1_is_not_taken_twice() -> None:
    greeting = hello(market_pb2.MarketHello(products=["BTC-USD"]))
    greeting.products.append("ETH-USD")
    assert translate.joined(N1, 1, release_0_1.hello(greeting)).products == {"BTC-USD"}


def test_a_service_message_that_cannot_be_read_is_left_out_and_logged_once_a_stream() -> None:
    session = Sessions().open(N1, has_services=True)
    greeting = hello(market_pb2.MarketHello(products=["BTC-USD"]))
    damaged = beat(market_pb2.MarketReport(measured=MARKET_MEASURED))
    greeting.services[0].payload = damaged.services[1].payload = b"\xff"
    with capture_logs() as lines:
        command = translate.joined(N1, session.number, greeting, session.unread)
        assert (command.products, command.measured) == (frozenset(), Measured(5, 6, 7))
        for _ in range(2):
            commands = list(translate.beat(N1, session.number, damaged, session.unread))
            assert commands == [NodeBeat(N1, session.number, 4, Measured(5, 6, 7))]
    assert [(line["event"], line["service"], line["node"]) for line in lines] == [
        ("link.service_not_read", "market", N1)
    ]


@pytest.mark.parametrize("output", [b'{"a": [1, null]}', b"1", b'"\xc3\xa4"', b""])
def test_an_output_that_is_json_is_taken_as_it_is(output: bytes) -> None:
    (result,) = translate.results(wire.AttemptResults(results=[_succeeded(output)]))
    assert (result.outcome, result.output, result.error_type) == (Outcome.SUCCEEDED, output, "")


@pytest.mark.parametrize(
    "output",
    [b"not json", b"{", b"NaN", b'{"a": Infinity}', b'"\xff"', b'"\\ud800"', b'1}, "state": "queued', b"[" * 9_999],
)
def test_an_output_that_is_not_json_fails_its_attempt_alone(output: bytes) -> None:
    good = wire.AttemptResult(task_id=2, fencing_token=3, outcome=wire.OUTCOME_SUCCEEDED, output=b"1")
    results = translate.results(wire.AttemptResults(results=[_succeeded(output), good]))
    assert results == (
        AttemptResult(TaskId(1), Token(2), Outcome.FAILED, b"", "OutputNotJson", "The output is not JSON.", "", 0.5),
        AttemptResult(TaskId(2), Token(3), Outcome.SUCCEEDED, b"1"),
    )


async def test_a_piece_of_output_that_is_not_json_reaches_no_watcher() -> None:
    nothing: Any = None
    heard = Heard()
    engine: Any = heard
    sessions = Sessions()
    link = LinkServer(engine, sessions, Limits(), LinkSettings(), LinkPorts(nothing, nothing, nothing), nothing)
    pieces = (b'{"n": 1}', b"1\n\nevent: end\ndata: {}", b"", b"2")
    messages = [wire.NodeMessage(attempt_output=wire.AttemptOutput(task_id=1, data=piece)) for piece in pieces]
    await link._read(sessions.open(N1, has_services=True), Stream(messages))
    assert heard.pieces == [b'{"n": 1}', b"2"]


class Heard:
    """An engine that keeps what it is told of output."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def output(self, node: str, task: TaskId, token: Token, data: bytes) -> None:
        self.pieces.append(data)


class Stream:
    """A node's stream that says these messages and ends."""

    def __init__(self, messages: list[wire.NodeMessage]) -> None:
        self._messages = iter(messages)

    async def read(self) -> object:
        return next(self._messages, grpc.aio.EOF)


def _succeeded(output: bytes) -> wire.AttemptResult:
    return wire.AttemptResult(
        task_id=1, fencing_token=2, outcome=wire.OUTCOME_SUCCEEDED, output=output, duration_us=500_000
    )
