"""LangGraph's checkpoints, kept by the farm: a run continues on any node, and no agent holds a database password.

A checkpoint travels whole (all channel values in one payload), so that one read is enough to go on. Source of the
rules: the `BaseCheckpointSaver` contract of langgraph-checkpoint 4.

Imports LangGraph: loaded only for agents that use it.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.base import id as checkpoint_ids

from agentfarm.errors import InvalidRequest
from agentfarm.sdk import CheckpointChannel, CheckpointRecord, CheckpointWrite
from agentfarm.sdk.payloads import Payloads, TypeName
from agentfarm.sdk.run import current_run

LIST_PAGE: Final = 20
_LAST_TIME: Final = "_last_v6_timestamp"
T = TypeVar("T")


class FarmCheckpointer(BaseCheckpointSaver[int]):
    """The checkpointer of one run, over that run's channel.

    The async methods belong to the event loop of the run. The sync ones are for graphs invoked in a thread: they do
    their work on that loop and wait. On the loop's own thread they refuse, because they would wait for themselves.
    Raises LeaseLost when the attempt has lost its task.
    """

    def __init__(self, channel: CheckpointChannel, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        super().__init__()
        self._channel = channel
        self._loop = loop
        self._thread = thread
        self._payloads = Payloads()

    def with_allowlist(self, extra_allowlist: Collection[TypeName]) -> FarmCheckpointer:
        """For a graph that has values of these types in its schema. LangGraph asks, in its strict mode."""
        clone = copy.copy(self)
        clone._payloads = self._payloads.with_types(extra_allowlist)
        return clone

    # -------------------------------------------------------------- async

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint a config names, or the newest of its thread and namespace."""
        thread, namespace = _place(config)
        records = await self._channel.get(thread, namespace, checkpoint_id=get_checkpoint_id(config) or "")
        return self._tuple(records[0]) if records else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints of the config's thread and namespace, newest first."""
        if config is None:
            raise InvalidRequest("A run sees the checkpoints of a thread; name it.", remedy="Give a config.")
        thread, namespace = _place(config)
        only, before_id = get_checkpoint_id(config) or "", (get_checkpoint_id(before) or "") if before else ""
        left = limit
        while left is None or left > 0:
            records = await self._channel.get(thread, namespace, only, before_id, LIST_PAGE)
            for record in records:
                checkpoint = self._tuple(record)
                if filter and any(checkpoint.metadata.get(key) != value for key, value in filter.items()):
                    continue
                if left is not None and (left := left - 1) < 0:
                    return
                yield checkpoint
            if only or len(records) < LIST_PAGE:
                return
            before_id = records[-1].checkpoint_id

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; durable when it returns."""
        thread, namespace = _place(config)
        stored = get_serializable_checkpoint_metadata(config, metadata)
        payload = self._payloads.pack({"checkpoint": checkpoint, "metadata": stored})
        parent = get_checkpoint_id(config) or ""
        await self._channel.put(CheckpointRecord(thread, namespace, checkpoint["id"], parent, payload))
        return _config(thread, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Add what a graph's task wrote to the checkpoint it began from; durable when it returns."""
        thread, namespace = _place(config)
        records = tuple(
            CheckpointWrite(
                task_id, WRITES_IDX_MAP.get(channel, index), self._payloads.pack([channel, value, task_path])
            )
            for index, (channel, value) in enumerate(writes)
        )
        await self._channel.put(
            CheckpointRecord(thread, namespace, config["configurable"]["checkpoint_id"], writes=records)
        )

    async def adelete_thread(self, thread_id: str) -> NoReturn:
        """Refused: other runs of the thread need its checkpoints. The farm's retention deletes them."""
        raise InvalidRequest(
            f"A run cannot delete the thread {thread_id!r}.", remedy="Checkpoints leave with the farm's retention."
        )

    # -------------------------------------------------------------- sync, from other threads than the loop's

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        checkpoints = self.alist(config, filter=filter, before=before, limit=limit)
        while True:
            try:
                yield self._wait(_next(checkpoints))
            except StopAsyncIteration:
                return

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._wait(self.adelete_thread(thread_id))

    # -------------------------------------------------------------- payloads

    def _tuple(self, record: CheckpointRecord) -> CheckpointTuple:
        stored = self._payloads.unpack(record.payload)
        _advance_ids(record.checkpoint_id)
        writes = [(write, *self._payloads.unpack(write.payload)) for write in record.writes]
        writes.sort(key=lambda item: writes_sort_key(item[3], item[0].writer_id, item[0].index))
        return CheckpointTuple(
            config=_config(record.thread_id, record.namespace, record.checkpoint_id),
            checkpoint=stored["checkpoint"],
            metadata=stored["metadata"],
            parent_config=_config(record.thread_id, record.namespace, record.parent_id) if record.parent_id else None,
            pending_writes=[(write.writer_id, channel, value) for write, channel, value, _ in writes],
        )

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.get_ident() == self._thread:
            work.close()
            raise RuntimeError(
                "A graph was invoked synchronously on the event loop. Use `await graph.ainvoke(…)`, or call it in a "
                "function that is not async: the farm runs that in a thread."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def current_checkpointer() -> FarmCheckpointer:
    """The checkpointer of the run in progress. Raises RuntimeError outside a run, and where runs are not durable."""
    run = current_run()
    if run.call.checkpoints is None:
        raise RuntimeError("This run is not durable: it has no thread to keep checkpoints in.")
    return FarmCheckpointer(run.call.checkpoints, run.loop, run.thread)


async def _next(checkpoints: AsyncIterator[T]) -> T:
    return await anext(checkpoints)


def _place(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), str(configurable.get("checkpoint_ns") or "")


def _config(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


def _advance_ids(checkpoint_id: str) -> None:
    """Make every id that this process gives from now on greater than one it has seen.

    The ids order a thread's checkpoints and are made from this machine's clock. Without this, a run that comes from a
    node whose clock is ahead would store its new checkpoints behind the old ones, and lose them at its next move.
    LangGraph keeps the last time it used in a variable of that module; we raise it, as a Lamport clock does (1978).
    """
    try:
        seen = checkpoint_ids.UUID(checkpoint_id)
    except ValueError:
        return
    if seen.version == 6:
        last = getattr(checkpoint_ids, _LAST_TIME, None) or 0
        setattr(checkpoint_ids, _LAST_TIME, max(last, seen.time))
