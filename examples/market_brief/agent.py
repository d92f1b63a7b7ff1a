"""What happened in a market: the node's own trades, measured exactly, then described in a few sentences.

    farmctl task submit market-brief '{"product": "BTC-USD", "minutes": 5}'

Input: `product`, and which trades of it: the last `minutes` of what is stored, or all `since` a time, or those from
`first_trade_id` to `last_trade_id`; all that is stored when none is given. `venue` where there are several.
Output: the numbers as texts, so that nothing is lost on the way, and the brief.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from measures import measures

from agentfarm.sdk import Reject, llm, tsdb

INSTRUCTIONS = (
    "You write for traders. Tell in at most three sentences what these figures say about the market. "
    "Use only these figures, and do not round them."
)


class Window(TypedDict, total=False):
    """The input: a product, and which of its trades."""

    product: str
    minutes: float
    since: str
    first_trade_id: int
    last_trade_id: int
    venue: str


class State(Window, total=False):
    """What the graph knows. The trades themselves stay out of it: a checkpoint should be small."""

    trades: int
    figures: dict[str, str]
    doubts: list[str]
    newest: str
    brief: str


class Brief(TypedDict, total=False):
    """What the caller gets. `figures` is empty when there were no trades, and the brief says why. `doubts`: why the
    node's data is not good now, such as trades that are still missing; empty when it is."""

    product: str
    trades: int
    figures: dict[str, str]
    doubts: list[str]
    brief: str


async def measure(state: State) -> State:
    """Read the trades on this node and reduce them to figures."""
    window = checked(state)
    trades = await tsdb().atrades(**window)
    if trades:
        quality = await tsdb().aquality(window["product"])
        return {"trades": len(trades), "figures": measures(trades), "doubts": list(quality.reasons)}
    newest = await asyncio.to_thread(tsdb().newest, window["product"])
    return {"trades": 0, "figures": {}, "doubts": [], "newest": newest.isoformat() if newest else ""}


async def write(state: State) -> State:
    """Tell the figures."""
    listed = "\n".join(f"{name}: {value}" for name, value in state["figures"].items())
    doubts = "".join(f"\nin doubt: {reason}" for reason in state["doubts"])
    prompt = f"product: {state['product']}\n{listed}{doubts}"
    reply = await llm("smart").ainvoke([("system", INSTRUCTIONS), ("user", prompt)])
    return {"brief": reply.text}


def explain(state: State) -> State:
    """Say that there is nothing to tell, and what would help."""
    product, newest = state["product"], state.get("newest")
    if newest:
        return {"brief": f"No trade of {product} on this node is in that window; the newest is of {newest}."}
    return {
        "brief": f"There are no trades of {product} on this node. Is it the product's full name, and does its feed run?"
    }


def checked(state: State) -> dict[str, Any]:
    """The window as `tsdb().trades` takes it. Rejects what makes no sense."""
    product = state.get("product")
    if not isinstance(product, str) or not product:
        raise Reject("The input needs a `product`, like BTC-USD.")
    window: dict[str, Any] = {"product": product}
    for name in ("first_trade_id", "last_trade_id"):
        if (value := state.get(name)) is not None:
            if not isinstance(value, int) or isinstance(value, bool):
                raise Reject(f"`{name}` must be a whole number.")
            window[name] = value
    if (minutes := state.get("minutes")) is not None:
        if not isinstance(minutes, int | float) or not 0 < minutes <= 1_000_000:
            raise Reject("`minutes` must be a number above 0.")
        window["minutes"] = minutes
    if (since := state.get("since")) is not None:
        window["since"] = moment(since)
    if (venue := state.get("venue")) is not None:
        window["venue"] = str(venue)
    return window


def moment(text: object) -> datetime:
    """An ISO 8601 time; one without an offset is in UTC."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        raise Reject(f"`since` must be a time like 2026-01-31T12:00:00Z, not {text!r}.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def text_or_explanation(state: State) -> str:
    """Which step follows the measuring."""
    return "write" if state["trades"] else "explain"


builder = StateGraph(State, input_schema=Window, output_schema=Brief)
builder.add_node("measure", measure)
builder.add_node("write", write)
builder.add_node("explain", explain)
builder.add_edge(START, "measure")
builder.add_conditional_edges("measure", text_or_explanation, ["write", "explain"])
builder.add_edge("write", END)
builder.add_edge("explain", END)
graph = builder.compile()
