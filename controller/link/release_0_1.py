"""What nodes of 0.1 say, in the words of this release, and what they understand in place of ours. 0.3.0 removes this.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from agentfarm.calls.checkpoints import (
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from controller.core.commands import Command
from controller.core.model import NodeName
from controller.link.services import SERVICES

MARKET: Final = "market"
SWITCHES: Final = frozenset({"open"})
"""Arguments of questions that are true or not given."""


def hello(message: wire.Hello) -> wire.Hello:
    """Of a node that does not speak of services: what stood in Hello itself is the market's."""
    if message.has_services:
        return message
    changed = wire.Hello()
    changed.CopyFrom(message)
    market = market_pb2.MarketHello(
        products=message.products, takes_products=message.takes_products, source=message.market_source,
        measured=_market(message.measured),
    )  # fmt: skip
    changed.services.add(name=MARKET, payload=market.SerializeToString())
    return changed


def beat(message: wire.Beat) -> wire.Beat:
    """Of a node that does not speak of services: what stood in Measured is the market's."""
    changed = wire.Beat()
    changed.CopyFrom(message)
    report = market_pb2.MarketReport(products_unchanged=True, measured=_market(message.measured))
    changed.services.add(name=MARKET, payload=report.SerializeToString())
    return changed


def market_reported(node: NodeName, session: int, report: market_pb2.MarketReport) -> Command:
    """Of a node that does not speak of services: its products come in a message of their own."""
    command = SERVICES[MARKET].reported(node, session, report.SerializeToString())
    assert command is not None
    return command


def desired(message: wire.Desired) -> None:
    """To a node that does not speak of services: what the market should be stands in Desired itself."""
    for service in message.services:
        if service.name == MARKET:
            message.market.products.extend(market_pb2.MarketDesired.FromString(service.payload).products)
            message.market.SetInParent()


def feed_request(number: int, payload: bytes) -> wire.FeedRequest:
    """A question to the market as nodes of 0.1 understand it."""
    question = market_pb2.MarketQuestion.FromString(payload)
    arguments = {name: True if name in SWITCHES else value for name, value in question.arguments.items()}
    return wire.FeedRequest(request_id=number, verb=question.verb, arguments_json=json.dumps(arguments))


def _market(measured: wire.Measured) -> market_pb2.MarketMeasured:
    return market_pb2.MarketMeasured(
        state=measured.market_state, rows=measured.market_rows, lag_ms=measured.market_lag_ms
    )


# ------------------------------------------------------------------ checkpoints


def put_call(request: wire.PutCheckpointRequest) -> list[bytes]:
    """Header and parts of the call that took its place."""
    point = request.checkpoint
    writes = tuple(CheckpointWrite(write.writer_id, write.index, write.payload) for write in point.writes)
    return pack_record(
        CheckpointRecord(point.thread_id, point.namespace, point.checkpoint_id, point.parent_id, point.payload, writes)
    )


def get_call(request: wire.GetCheckpointsRequest) -> bytes:
    """The header of the call that took its place."""
    return CheckpointQuery(
        request.thread_id, request.namespace, request.checkpoint_id, request.before_id, request.limit
    ).pack()


def checkpoints(parts: Iterable[bytes]) -> list[wire.Checkpoint]:
    """The answer to `get_call` as nodes of 0.1 expect it."""
    return [
        wire.Checkpoint(
            thread_id=record.thread_id,
            namespace=record.namespace,
            checkpoint_id=record.checkpoint_id,
            parent_id=record.parent_id,
            payload=record.payload,
            writes=[
                wire.CheckpointWrite(writer_id=write.writer_id, index=write.index, payload=write.payload)
                for write in record.writes
            ],
        )
        for record in read_records(list(parts))
    ]
