"""Run an agent here and now, without a farm: for its author's tests and notebooks.

    from agentfarm.sdk.testing import farm_run
    assert farm_run("agents/question_answering.py", {"question": "…"}).output["answer"]

The run does what a replica does: the same loading, the same checkpoints (in memory), the same pieces. `llm()` is the
scripted model unless an endpoint is configured. `tsdb()` has market data where `AGENTFARM_TSDB` names a QuestDB.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentfarm.calls.checkpoints import CheckpointRecord
from agentfarm.errors import InvalidRequest
from agentfarm.sdk.call import Call
from agentfarm.sdk.loader import LoadedAgent, load_agent


@dataclass(slots=True)
class MemoryCheckpoints:
    """The farm's checkpoint store by its contract, in memory. Runs that share one can continue, or converse."""

    records: dict[tuple[str, str, str], CheckpointRecord] = field(default_factory=dict)

    async def put(self, checkpoint: CheckpointRecord) -> None:
        """Store, or add writes to what is stored."""
        key = (checkpoint.thread_id, checkpoint.namespace, checkpoint.checkpoint_id)
        old = self.records.get(key)
        writes = {(write.writer_id, write.index): write for write in old.writes} if old else {}
        writes |= {(write.writer_id, write.index): write for write in checkpoint.writes}
        body = checkpoint if checkpoint.payload or old is None else old
        self.records[key] = CheckpointRecord(*key, body.parent_id, body.payload, tuple(writes.values()))

    async def get(
        self, thread_id: str, namespace: str, checkpoint_id: str = "", before_id: str = "", limit: int = 1
    ) -> list[CheckpointRecord]:
        """Newest first."""
        records = [
            record
            for (thread, space, name), record in self.records.items()
            if (thread, space) == (thread_id, namespace)
            and record.payload
            and (not checkpoint_id or name == checkpoint_id)
            and (not before_id or name < before_id)
        ]
        return sorted(records, key=lambda record: record.checkpoint_id, reverse=True)[: limit or 1]


@dataclass(frozen=True, slots=True)
class FarmRun:
    """How a run ended."""

    output: Any
    pieces: list[Any]
    """What watchers would have seen, in order."""
    checkpoints: MemoryCheckpoints


def farm_run(
    path: str | Path,
    input: object = None,  # noqa: A002 - the word of the gateway
    *,
    entry: str | None = None,
    task_id: int = 1,
    attempt: int = 1,
    thread_id: str | None = None,
    checkpoints: MemoryCheckpoints | None = None,
) -> FarmRun:
    """Load the agent at a path (a file or a folder) and run one attempt. Raises what the agent raises.

    Give `attempt=2` and the checkpoints of a run that failed, to see it go on; give a `thread_id` and another
    `task_id`, to take the next turn of a conversation. Not for use inside a running event loop: see `farm_arun`.
    """
    return asyncio.run(
        farm_arun(
            load(path, entry), input, task_id=task_id, attempt=attempt, thread_id=thread_id, checkpoints=checkpoints
        )
    )


async def farm_arun(
    agent: LoadedAgent,
    input: object = None,  # noqa: A002 - the word of the gateway
    *,
    task_id: int = 1,
    attempt: int = 1,
    thread_id: str | None = None,
    checkpoints: MemoryCheckpoints | None = None,
) -> FarmRun:
    """As `farm_run`, of an agent that is loaded, and for use with `await`."""
    store = MemoryCheckpoints() if checkpoints is None else checkpoints
    pieces: list[Any] = []
    call = Call(task_id, attempt, thread_id or f"task-{task_id}", input, pieces.append, store)
    return FarmRun(await agent.run(call), pieces, store)


def load(path: str | Path, entry: str | None = None) -> LoadedAgent:
    """The agent at a path, as a replica would load it; without `entry`, the one its spec names."""
    place = Path(path)
    if entry is None:
        from agentfarm.agents.sources import find_agents  # noqa: PLC0415 - reads specs, which replicas never do

        agents = find_agents(place)
        if len(agents) != 1:
            raise InvalidRequest(
                f"There are {len(agents)} agents in {place}.", remedy="Name one of them, or its entry."
            )
        return load_agent(agents[0].root, agents[0].spec.entry)
    return load_agent(place.parent if place.is_file() else place, entry)
