"""Calls of attempts: the lease is checked before any handler, the form is one on both sides, and 0.1 is understood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agentfarm.calls.checkpoints import (
    GET,
    PUT,
    CheckpointQuery,
    CheckpointRecord,
    CheckpointWrite,
    pack_record,
    read_records,
)
from agentfarm.errors import InvalidRequest, StaleToken
from agentfarm.sdk.call import FarmCheckpoints, make_call
from agentfarm.wire import link_pb2 as wire
from controller.core.commands import StoreCheckpoint
from controller.core.model import NodeName, ReplicaId, TaskId, Token
from controller.core.tasks.life import thread_id
from controller.core.transition import CheckpointRow
from controller.link import release_0_1 as controller_0_1
from controller.link.agent_calls import AgentCalls, Caller, handlers
from nodeagent.link import release_0_1 as node_0_1
from nodeagent.replicas.relay import read_call_0_1
from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import Kind
from tests.unit.core.farm import Farm

RECORD = CheckpointRecord("t", "", "2", "1", b"\0state", (CheckpointWrite("w", -1, b"a"), CheckpointWrite("w", 0, b"")))
QUERY = CheckpointQuery("t", "space", "7", "9", 20)


class Store:
    """The farm's side of the calls: an engine that runs each command at once, and a table to read from."""

    def __init__(self) -> None:
        self.farm = Farm()
        self.farm.service("n1")
        (self.task,) = self.farm.submit()
        self.rows: list[CheckpointRow] = []
        self.calls = AgentCalls(self._engine(), handlers(self._engine(), self._read))
        assert self.task.token is not None
        assert self.task.node is not None
        assert self.task.replica is not None
        self.caller = Caller(self.task.node, self.task.replica, self.task.id, self.task.token)

    def _engine(self) -> Any:
        async def ask(command: StoreCheckpoint) -> Any:
            self.farm.ask(command)
            self.rows += self.farm.out.changes.checkpoints

        return SimpleNamespace(state=self.farm.state, ask=ask)

    def _read(self, *query: object) -> list[CheckpointRow]:
        self.query = query
        return self.rows


@pytest.fixture
def store() -> Store:
    return Store()


async def test_what_is_put_comes_back(store: Store) -> None:
    class Direct:
        async def call(self, method: str, header: bytes, parts: Sequence[bytes] = ()) -> list[bytes]:
            return list(await store.calls.answer(store.caller, method, header, parts))

    record = replace(RECORD, thread_id=thread_id(store.task))
    call = make_call(store.task.id, 1, record.thread_id, None, print, Direct())
    assert isinstance(call.checkpoints, FarmCheckpoints)
    await call.checkpoints.put(record)
    assert await call.checkpoints.get(record.thread_id, "", before_id="3", limit=5) == [record]
    assert store.query == (record.thread_id, "", "", "3", 5)


@pytest.mark.parametrize(
    "stranger",
    [
        {"node": NodeName("n2")}, {"replica": ReplicaId(99)}, {"task": TaskId(99)}, {"token": Token(99)},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
@pytest.mark.parametrize("method", [PUT, GET])
async def test_only_the_attempt_that_holds_the_lease_is_answered(
    store: Store, method: str, stranger: dict[str, Any]
) -> None:
    with pytest.raises(StaleToken):
        await store.calls.answer(replace(store.caller, **stranger), method, b"{}", ())
    assert not store.rows


async def test_a_node_of_0_1_does_not_say_the_replica(store: Store) -> None:
    header, *parts = pack_record(replace(RECORD, thread_id=thread_id(store.task)))
    assert not list(await store.calls.answer(replace(store.caller, replica=None), PUT, header, parts))
    assert len(store.rows) == 1


@pytest.mark.parametrize(
    ("method", "header", "parts"),
    [
        ("secrets.get", b"{}", ()), (PUT, b"no json", (b"",)), (PUT, b"{}", (b"",)), (PUT, pack_record(RECORD)[0], ()),
        (PUT, pack_record(RECORD)[0], (b"", b"", b"", b"one too many")), (GET, b"[]", ()), (GET, b"{}", ()),
    ],
)  # fmt: skip
async def test_what_is_not_understood_is_refused(
    store: Store, method: str, header: bytes, parts: Sequence[bytes]
) -> None:
    with pytest.raises(InvalidRequest):
        await store.calls.answer(store.caller, method, header, parts)
    assert not store.rows


async def test_a_thread_of_another_task_is_not_read(store: Store) -> None:
    with pytest.raises(StaleToken):
        await store.calls.answer(store.caller, GET, QUERY.pack(), ())


# ------------------------------------------------------------------ 0.1


def test_heads_are_those_that_replicas_of_0_1_send() -> None:
    """A release that changes a key of these has to serve both."""
    assert json.loads(pack_record(RECORD)[0]) == {
        "thread_id": "t", "namespace": "", "checkpoint_id": "2", "parent_id": "1", "writes": [["w", -1], ["w", 0]],
    }  # fmt: skip
    assert json.loads(QUERY.pack()) == {
        "thread_id": "t", "namespace": "space", "checkpoint_id": "7", "before_id": "9", "limit": 20,
    }  # fmt: skip


def test_frames_of_a_replica_of_0_1_are_calls() -> None:
    lease = {"task_id": 5, "token": 6, "request": 7}
    head, *parts = pack_record(RECORD)
    put = frames.pack_parts([json.dumps({**lease, **json.loads(head)}).encode(), *parts])
    call = read_call_0_1(Kind.CHECKPOINT_PUT, put)
    assert (call.number, call.task_id, call.token, call.method) == (7, 5, 6, PUT)
    assert read_records([call.header, *call.parts]) == [RECORD]
    get = frames.pack_parts([json.dumps({**lease, **json.loads(QUERY.pack())}).encode()])
    call = read_call_0_1(Kind.CHECKPOINT_GET, get)
    assert (call.number, call.method, CheckpointQuery.read(call.header), call.parts) == (7, GET, QUERY, [])


def test_calls_about_checkpoints_can_be_said_in_0_1_and_back() -> None:
    header, *parts = pack_record(RECORD)
    lease = {"task_id": 5, "fencing_token": 6}
    put = node_0_1.checkpoint_request(wire.AgentCallRequest(method=PUT, header=header, parts=parts, **lease))
    assert isinstance(put, wire.PutCheckpointRequest)
    assert (put.task_id, put.fencing_token) == (5, 6)
    assert controller_0_1.put_call(put) == [header, *parts]
    get = node_0_1.checkpoint_request(wire.AgentCallRequest(method=GET, header=QUERY.pack(), **lease))
    assert isinstance(get, wire.GetCheckpointsRequest)
    assert (get.task_id, get.fencing_token) == (5, 6)
    assert controller_0_1.get_call(get) == QUERY.pack()
    answer = [header, *parts, *pack_record(replace(RECORD, checkpoint_id="1", writes=()))]
    assert node_0_1.answer_parts(controller_0_1.checkpoints(answer)) == answer
