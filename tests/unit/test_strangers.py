"""What nodes and agents say is data: a number or text that no column holds never reaches one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentfarm.calls.checkpoints import GET, PUT, CheckpointQuery, CheckpointRecord, CheckpointWrite, pack_record
from agentfarm.errors import InvalidRequest
from agentfarm.limits import (
    CHECKPOINT_ID_BYTES_MAX,
    COUNT_MAX,
    ID_MAX,
    NAMESPACE_BYTES_MAX,
    PRODUCT_NAME_CHARS_MAX,
    WORD_CHARS_MAX,
    WORDS_MAX,
)
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import market_pb2
from controller.core.model import NodeName
from controller.core.tasks.life import thread_id
from controller.link import translate
from tests.unit.test_agent_calls import Store

N1 = NodeName("n1")
U32, U64 = 2**32 - 1, 2**64 - 1


@pytest.mark.parametrize("field", ["cpu_millicores", "memory_mib", "gpus"])
def test_capacity_of_no_machine_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field} is {U32}"):
        translate.joined(N1, 1, wire.Hello(has_services=True, capacity=wire.Capacity(**{field: U32})))
    largest = translate.joined(N1, 1, wire.Hello(has_services=True, capacity=wire.Capacity(**{field: COUNT_MAX})))
    assert getattr(largest, field) == COUNT_MAX


@pytest.mark.parametrize(
    "hello",
    [
        wire.Hello(labels={"a": "x" * (WORD_CHARS_MAX + 1)}),
        wire.Hello(labels={"a": "\0"}),
        wire.Hello(labels={str(number): "" for number in range(WORDS_MAX + 1)}),
        wire.Hello(capabilities=["x"] * (WORDS_MAX + 1)),
        wire.Hello(capabilities=["x" * (WORD_CHARS_MAX + 1)]),
    ],
    ids=["long label", "NUL", "many labels", "many capabilities", "long capability"],
)
def test_labels_and_capabilities_have_bounds(hello: wire.Hello) -> None:
    with pytest.raises(InvalidRequest):
        translate.joined(N1, 1, hello)


def test_numbers_of_a_replica_fit_their_columns() -> None:
    status = wire.ReplicaStatus(
        replica_id=U64, state=wire.REPLICA_STATE_RUNNING, reason="\0" + "r" * 999, pid=U32, restarts=U32,
        private_mib=U32, ready_ms=U32,
    )  # fmt: skip
    (news,) = translate.replica_news([status])
    assert (news.replica, news.pid, news.restarts, news.private_mib, news.ready_ms) == (0, *[COUNT_MAX] * 4)
    assert len(news.reason) == WORD_CHARS_MAX
    assert "\0" not in news.reason


def test_result_of_a_task_that_cannot_be_is_of_none() -> None:
    items = [wire.AttemptResult(task_id=number, fencing_token=U64) for number in (5, ID_MAX, ID_MAX + 1, U64)]
    results = translate.results(wire.AttemptResults(results=items))
    assert [result.task for result in results] == [5, ID_MAX, 0, 0]
    assert {result.token for result in results} == {U64}, "it is acknowledged as the node knows it"


def test_names_of_products_have_a_bound() -> None:
    names = ["BTC-USD", "x" * (PRODUCT_NAME_CHARS_MAX + 1), "a\0b", ""]
    hello = market_pb2.MarketHello(products=names, source="s" * 999)
    services = [wire.ServiceHello(name="market", payload=hello.SerializeToString())]
    joined = translate.joined(N1, 1, wire.Hello(has_services=True, services=services))
    assert joined.products == {"BTC-USD"}
    assert len(joined.market_source) == WORD_CHARS_MAX


# ------------------------------------------------------------------ checkpoints

RECORD = CheckpointRecord("t", "", "2", "1", b"state", (CheckpointWrite("w", 0, b"a"),))


@pytest.mark.parametrize(
    "bad",
    [
        replace(RECORD, namespace="n" * 18_000),
        replace(RECORD, namespace="ä" * (NAMESPACE_BYTES_MAX // 2) + "x"),
        replace(RECORD, namespace="\0"),
        replace(RECORD, checkpoint_id="c" * (CHECKPOINT_ID_BYTES_MAX + 1)),
        replace(RECORD, parent_id="c" * (CHECKPOINT_ID_BYTES_MAX + 1)),
        replace(RECORD, writes=(CheckpointWrite("w" * (CHECKPOINT_ID_BYTES_MAX + 1), 0, b""),)),
        replace(RECORD, writes=(CheckpointWrite("w", 2**31, b""),)),
        replace(RECORD, writes=(CheckpointWrite("w", 0, b""),) * 10_001),
    ],
    ids=["18 kB", "bytes", "NUL", "checkpoint id", "parent id", "writer id", "index", "writes"],
)
async def test_checkpoint_whose_keys_no_index_holds_is_refused(bad: CheckpointRecord) -> None:
    store = Store()
    header, *parts = pack_record(replace(bad, thread_id=thread_id(store.task)))
    with pytest.raises(InvalidRequest):
        await store.calls.answer(store.caller, PUT, header, parts)
    assert not store.rows


async def test_checkpoint_at_the_bounds_is_stored() -> None:
    store = Store()
    whole = replace(
        RECORD, thread_id=thread_id(store.task), namespace="n" * NAMESPACE_BYTES_MAX, checkpoint_id="c" * 255,
        writes=(CheckpointWrite("w" * CHECKPOINT_ID_BYTES_MAX, -COUNT_MAX, b""),),
    )  # fmt: skip
    header, *parts = pack_record(whole)
    await store.calls.answer(store.caller, PUT, header, parts)
    assert len(store.rows) == 1


@pytest.mark.parametrize(("limit", "asked"), [(-5, 1), (0, 1), (7, 7), (2**40, 100)])
async def test_query_asks_for_a_number_of_checkpoints_that_can_be(limit: int, asked: int) -> None:
    store = Store()
    await store.calls.answer(store.caller, GET, CheckpointQuery(thread_id(store.task), "", limit=limit).pack(), ())
    assert store.query[-1] == asked
