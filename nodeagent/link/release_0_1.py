"""What a controller of 0.1 understands in place of what this release says, and the reverse. 0.3.0 removes this file.

Pure: from the messages of this release to those of 0.1, and back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agentfarm.calls.checkpoints import (
    PUT,
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2

MARKET: Final = "market"


def fill_hello(hello: wire.Hello) -> None:
    """Add what a controller of 0.1 reads; others ignore it. Who will read it is not known yet."""
    for service in hello.services:
        if service.name == MARKET:
            market = market_pb2.MarketHello.FromString(service.payload)
            hello.products.extend(market.products)
            hello.takes_products, hello.market_source = market.takes_products, market.source
            _fill_measured(hello.measured, market.measured)


def change_beat(beat: wire.Beat) -> market_pb2.MarketReport | None:
    """Say what the services report as 0.1 does. Returns the products' report, which is a message of its own there."""
    products = None
    for service in beat.services:
        if service.name == MARKET:
            report = market_pb2.MarketReport.FromString(service.payload)
            _fill_measured(beat.measured, report.measured)
            if not report.products_unchanged:
                products = market_pb2.MarketReport(products=report.products)
    beat.ClearField("services")
    return products


def draining(drain: Callable[[], Iterable[wire.NodeMessage]]) -> Callable[[], Iterator[wire.NodeMessage]]:
    """What waits to be sent, in the words of 0.1."""

    def drain_0_1() -> Iterator[wire.NodeMessage]:
        for message in drain():
            report = change_beat(message.beat) if message.HasField("beat") else None
            yield message
            if report is not None:
                yield wire.NodeMessage(market_report=report)

    return drain_0_1


def hearing(hear: Callable[[wire.ControllerMessage], None]) -> Callable[[wire.ControllerMessage], None]:
    """Hears a controller of 0.1, whose words for the market are turned into those of this release."""

    def hear_0_1(message: wire.ControllerMessage) -> None:
        kind = message.WhichOneof("body")
        if kind == "desired" and message.desired.HasField("market"):
            desired = market_pb2.MarketDesired(products=message.desired.market.products)
            message.desired.services.add(name=MARKET, payload=desired.SerializeToString())
        elif kind == "feed_request":
            message = wire.ControllerMessage(service_request=_request(message.feed_request))
        hear(message)

    return hear_0_1


def _request(old: wire.FeedRequest) -> wire.ServiceRequest:
    question = market_pb2.MarketQuestion(verb=old.verb, arguments=_arguments(old.arguments_json))
    return wire.ServiceRequest(request_id=old.request_id, name=MARKET, payload=question.SerializeToString())


def _arguments(text: str) -> dict[str, str]:
    """As texts. What is not an object is refused where the names are checked."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return {"arguments_json": text}
    return {
        name: "true" if value is True else str(value)
        for name, value in arguments.items()
        if value not in (None, False, "")
    }


def _fill_measured(old: wire.Measured, market: market_pb2.MarketMeasured) -> None:
    old.market_state, old.market_rows, old.market_lag_ms = market.state, market.rows, market.lag_ms


# ------------------------------------------------------------------ checkpoints


def checkpoint_request(request: wire.AgentCallRequest) -> wire.PutCheckpointRequest | wire.GetCheckpointsRequest:
    """A call about checkpoints as one of the two calls that 0.1 has for them."""
    token, task_id = request.fencing_token, request.task_id
    if request.method == PUT:
        (record,) = read_records([request.header, *request.parts])
        return wire.PutCheckpointRequest(fencing_token=token, task_id=task_id, checkpoint=_checkpoint(record))
    query = CheckpointQuery.read(request.header)
    return wire.GetCheckpointsRequest(
        fencing_token=token, task_id=task_id, thread_id=query.thread_id, namespace=query.namespace,
        checkpoint_id=query.checkpoint_id, before_id=query.before_id, limit=query.limit,
    )  # fmt: skip


def answer_parts(checkpoints: Iterable[wire.Checkpoint]) -> list[bytes]:
    """Checkpoints of a 0.1 controller as the parts of an answer."""
    return [part for point in checkpoints for part in pack_record(_record(point))]


def _checkpoint(record: CheckpointRecord) -> wire.Checkpoint:
    return wire.Checkpoint(
        thread_id=record.thread_id,
        namespace=record.namespace,
        checkpoint_id=record.checkpoint_id,
        parent_id=record.parent_id,
        payload=record.payload,
        writes=[wire.CheckpointWrite(writer_id=w.writer_id, index=w.index, payload=w.payload) for w in record.writes],
    )


def _record(point: wire.Checkpoint) -> CheckpointRecord:
    writes = tuple(CheckpointWrite(write.writer_id, write.index, write.payload) for write in point.writes)
    return CheckpointRecord(
        point.thread_id, point.namespace, point.checkpoint_id, point.parent_id, point.payload, writes
    )
