"""What an agent's author imports: `from agentfarm.sdk import llm, tsdb, context, emit, Reject`.

Importing this loads the standard library only, since it also runs in agents' own environments: LangGraph, LangChain,
psycopg2 and httpx are loaded by the call that needs them.

    llm(role)       a chat model: the farm's, or a deterministic scripted one where none is configured
    tsdb()          read-only access to the market data of this node
    context()       which task, attempt, node and replica this is
    emit(piece)     a piece of output for those who watch the task now
    checkpointer()  the run's durable LangGraph checkpointer, for graphs that a plain function runs itself
    Reject          raised: this task can never succeed, do not try again

What runs agents (the zygote, the replica, `agentfarm.sdk.testing`) uses `load_agent`, `Call` and the checkpoint types;
the replica makes each `Call` by `make_call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentfarm.calls.checkpoints import CheckpointRecord, CheckpointWrite
from agentfarm.sdk.call import Call, CheckpointChannel, LeaseLost, make_call
from agentfarm.sdk.loader import AgentImportError, LoadedAgent, load_agent
from agentfarm.sdk.run import Context, Reject, context, emit

if TYPE_CHECKING:
    from agentfarm.sdk.checkpoints import FarmCheckpointer
    from agentfarm.sdk.market import MarketData

__all__ = [
    "AgentImportError", "Call", "CheckpointChannel", "CheckpointRecord", "CheckpointWrite", "Context", "LeaseLost",
    "LoadedAgent", "Reject", "checkpointer", "context", "emit", "llm", "load_agent", "make_call", "tsdb",
]  # fmt: skip


def llm(role: str = "smart", **settings: Any) -> Any:
    """A chat model for a role.

    role: a word like `smart` or `fast`; the farm maps it to a model. settings: `temperature`, `max_tokens`, …, sent
    with every request. Returns a LangChain chat model where langchain-core is installed, else one with the same
    `invoke`, `ainvoke`, `stream` and `astream` over plain messages. With no endpoint configured the answers come from a
    deterministic scripted model.
    """
    from agentfarm.sdk.models import chat_model  # noqa: PLC0415 - loaded when used

    return chat_model(role, settings)


def tsdb() -> MarketData:
    """The market data of this node, read-only. Raises Unavailable on the first query where the node has none."""
    from agentfarm.sdk.market import market_data  # noqa: PLC0415 - loaded when used

    return market_data()


def checkpointer() -> FarmCheckpointer:
    """The checkpointer of the run in progress. Raises RuntimeError outside a run or where runs are not durable."""
    from agentfarm.sdk.checkpoints import current_checkpointer  # noqa: PLC0415 - loaded when used

    return current_checkpointer()
