"""A node that says what no honest one does, on the real link and PostgreSQL: it hurts itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from agentfarm.calls.checkpoints import GET, CheckpointQuery
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import link_pb2_grpc
from controller.core.commands import AddNode, AttemptResult, AttemptsEnded, Deploy, NewTask, SubmitTasks
from controller.core.lives import Outcome
from controller.core.model import OPERATOR, DeploymentName, Limits, NodeName, TaskId, Token
from controller.core.policy import Policy
from controller.engine import Engine
from controller.journal.journal import Journal
from controller.journal.queries.reader import Reader
from controller.link.server import LinkPorts, LinkServer, LinkSettings, LinkTls
from controller.link.sessions import Sessions
from tests.integration.node.certificates import Authority

AGENT = DeploymentName("echo")
HONEST, HOSTILE = "honest", "hostile"
U32, U64 = 2**32 - 1, 2**64 - 1
CAPACITY = wire.Capacity(cpu_millicores=4000, memory_mib=4096)


class Peer:
    """A node's end of the link: it says what a test says, and hears."""

    def __init__(self, farm: Farm, name: str) -> None:
        credentials = grpc.ssl_channel_credentials(farm.authority.pem, *farm.authority.issue(name))
        self._channel = grpc.aio.secure_channel(f"localhost:{farm.link.port}", credentials)
        self.stub: Any = link_pb2_grpc.LinkStub(self._channel)  # type: ignore[no-untyped-call]
        self.stream: Any = None
        self.seq = 0

    async def join(self, capacity: wire.Capacity = CAPACITY) -> None:
        self.stream = self.stub.Connect()
        await self.say(hello=wire.Hello(protocol=1, has_services=True, capacity=capacity))

    async def say(self, **body: Any) -> None:
        await self.stream.write(wire.NodeMessage(**body))

    async def hear(self, kind: str) -> Any:
        """The next message of a kind."""
        async with asyncio.timeout(60):
            while True:
                message = await self.stream.read()
                assert message is not grpc.aio.EOF
                if message.WhichOneof("body") == kind:
                    return getattr(message, kind)

    async def is_served(self) -> bool:
        """Whether the stream lives, and a leader answers on it."""
        self.seq += 1
        await self.say(beat=wire.Beat(seq=self.seq))
        return bool((await self.hear("beat_ack")).seq == self.seq)

    async def assigned(self) -> wire.Assignment:
        """Start what is desired; the first attempt that comes."""
        desired = await self.hear("desired")
        while not desired.replicas:
            desired = await self.hear("desired")
        running = [
            wire.ReplicaStatus(replica_id=it.replica_id, state=wire.REPLICA_STATE_RUNNING) for it in desired.replicas
        ]
        await self.say(replica_report=wire.ReplicaReport(replicas=running))
        assignment: wire.Assignment = (await self.hear("assign")).assignments[0]
        return assignment

    async def close(self) -> None:
        await self._channel.close()


@dataclass
class Farm:
    """What a test may touch."""

    engine: Engine
    link: LinkServer
    reader: Reader
    authority: Authority


@pytest.fixture
async def farm(database_url: str) -> AsyncIterator[Farm]:
    journal, reader, sessions = Journal(database_url), Reader(database_url), Sessions()
    engine = Engine(journal, sessions, Limits())
    authority = Authority.make()
    ports = LinkPorts(lambda *_: (0, []), reader.checkpoints, lambda csr, name: b"")
    tls = LinkTls(*authority.issue("controller"), authority.pem)
    link = LinkServer(engine, sessions, Limits(), LinkSettings(port=0), ports, tls)
    await engine.start()
    await link.start()
    await engine.leading.wait()
    for name in (HONEST, HOSTILE):
        await engine.ask(AddNode(NodeName(name), actor=OPERATOR))
    yield Farm(engine, link, reader, authority)
    await link.stop()
    await engine.stop()
    journal.close()
    reader.close()


@pytest.fixture
async def honest(farm: Farm) -> AsyncIterator[Peer]:
    peer = Peer(farm, HONEST)
    await peer.join()
    assert await peer.is_served()
    yield peer
    await peer.close()


@pytest.fixture
async def hostile(farm: Farm) -> AsyncIterator[Peer]:
    peer = Peer(farm, HOSTILE)
    yield peer
    await peer.close()


async def leased(farm: Farm, honest: Peer) -> wire.Assignment:
    """An attempt that the honest node holds."""
    await farm.engine.ask(Deploy(AGENT, "sha256:0", "{}", Policy(), actor=OPERATOR))
    await farm.engine.ask(SubmitTasks((NewTask(AGENT, b"1"),), actor=OPERATOR))
    return await honest.assigned()


async def test_hello_of_no_machine_is_refused_and_others_are_served(farm: Farm, honest: Peer, hostile: Peer) -> None:
    await hostile.join(wire.Capacity(cpu_millicores=U32, memory_mib=U32))
    with pytest.raises(grpc.aio.AioRpcError, match=f"cpu_millicores is {U32}"):
        await hostile.hear("desired")
    assert await honest.is_served()
    assert farm.engine.metrics.recoveries == 0


async def test_result_of_no_task_is_acknowledged_and_others_are_served(farm: Farm, honest: Peer, hostile: Peer) -> None:
    await hostile.join()
    result = wire.AttemptResult(task_id=U64, fencing_token=U64, outcome=wire.OUTCOME_SUCCEEDED, output=b"1")
    await hostile.say(attempt_results=wire.AttemptResults(results=[result]))
    assert list((await hostile.hear("results_ack")).tokens) == [U64]
    assert await hostile.is_served()
    assert await honest.is_served()
    assert farm.engine.metrics.commit_failures == 0


async def test_turn_that_postgresql_refuses_costs_the_fact_at_fault(farm: Farm, honest: Peer, hostile: Peer) -> None:
    """As if the border had let it through: a task that no bigint names, in one turn with what others want."""
    await hostile.join()
    assert await hostile.is_served()
    mine = await leased(farm, honest)
    epoch, node = farm.engine.state.epoch, farm.engine.state.nodes[NodeName(HOSTILE)]
    bad = AttemptResult(TaskId(U64), Token(U64), Outcome.SUCCEEDED)
    good = wire.AttemptResult(task_id=mine.task_id, fencing_token=mine.fencing_token, outcome=wire.OUTCOME_SUCCEEDED)
    submit = asyncio.create_task(farm.engine.ask(SubmitTasks((NewTask(AGENT, b"2"),), actor=OPERATOR)))
    await asyncio.sleep(0)
    farm.engine.tell(AttemptsEnded(node.name, node.session, (bad,)))
    assert await submit == [mine.task_id + 1]
    assert list((await hostile.hear("results_ack")).tokens) == [U64]
    await honest.say(attempt_results=wire.AttemptResults(results=[good]))
    assert list((await honest.hear("results_ack")).tokens) == [mine.fencing_token]
    assert await honest.is_served()
    assert await hostile.is_served()
    metrics = farm.engine.metrics
    assert (farm.engine.state.epoch, metrics.recoveries) == (epoch, 0)
    assert metrics.commit_failures > 0
    (stored,) = farm.reader.events(kinds=["fact.set_aside"])
    assert (stored.event.node, stored.event.data) == (HOSTILE, {"fact": "AttemptsEnded"})


# ------------------------------------------------------------------ whose is it: a guessed token proves nothing


async def test_another_node_cannot_end_an_attempt_or_speak_for_it(farm: Farm, honest: Peer, hostile: Peer) -> None:
    mine = await leased(farm, honest)
    await hostile.join()
    watch = farm.engine.watch_task(TaskId(mine.task_id))
    assert watch is not None
    whose: dict[str, Any] = {"task_id": mine.task_id, "fencing_token": mine.fencing_token}
    forged = wire.AttemptResult(**whose, outcome=wire.OUTCOME_SUCCEEDED, output=b'"forged"', replica_id=mine.replica_id)
    await hostile.say(attempts_started=wire.AttemptsStarted(tokens=[mine.fencing_token]))
    await hostile.say(attempt_output=wire.AttemptOutput(**whose, seq=1, data=b'"forged"'))
    await hostile.say(attempt_results=wire.AttemptResults(results=[forged]))
    assert list((await hostile.hear("results_ack")).tokens) == [mine.fencing_token]
    for replica_id, output in ((mine.replica_id + 1, b'"of a neighbour"'), (mine.replica_id, b'"true"')):
        await honest.say(attempt_output=wire.AttemptOutput(**whose, seq=1, data=output))
        result = wire.AttemptResult(
            **whose, outcome=wire.OUTCOME_SUCCEEDED, output=output, replica_id=replica_id
        )  # fmt: skip
        await honest.say(attempt_results=wire.AttemptResults(results=[result]))
        assert list((await honest.hear("results_ack")).tokens) == [mine.fencing_token]
    heard = [getattr(item, "data", getattr(item, "output", None)) async for item in watch]
    assert b'"forged"' not in heard
    assert heard[-1] == b'"true"'


async def test_another_node_neither_reads_nor_writes_checkpoints(farm: Farm, honest: Peer, hostile: Peer) -> None:
    mine = await leased(farm, honest)
    whose: dict[str, Any] = {"task_id": mine.task_id, "fencing_token": mine.fencing_token}
    point = wire.Checkpoint(thread_id=mine.thread_id, checkpoint_id="1", payload=b"state")
    put = wire.PutCheckpointRequest(**whose, checkpoint=point)
    get = wire.GetCheckpointsRequest(**whose, thread_id=mine.thread_id)
    query = CheckpointQuery(mine.thread_id, "").pack()
    call = wire.AgentCallRequest(**whose, method=GET, replica_id=mine.replica_id, header=query)
    await honest.stub.PutCheckpoint(put)
    other = wire.AgentCallRequest(**whose, method=GET, replica_id=mine.replica_id + 1, header=query)
    for refused in (
        hostile.stub.PutCheckpoint(put), hostile.stub.GetCheckpoints(get), hostile.stub.AgentCall(call),
        honest.stub.AgentCall(other),
    ):  # fmt: skip
        with pytest.raises(grpc.aio.AioRpcError) as problem:
            await refused
        assert problem.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert [it.payload for it in (await honest.stub.GetCheckpoints(get)).checkpoints] == [b"state"]
    assert (await honest.stub.AgentCall(call)).parts[1] == b"state"
