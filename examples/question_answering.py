"""Answers a question from a small body of text: two steps, look up and answer.

    farmctl task submit question-answering '{"question": "What happens when a node is lost?"}'

Give `context` to ask about a text of your own. With no language model configured the answer is the sentences that fit
the question best.
"""

from __future__ import annotations

import re
from typing import TypedDict

from langgraph.graph import START, StateGraph

from agentfarm.sdk import Reject, llm

KNOWLEDGE = """
A farm is one controller and many nodes. A node is a machine that runs one node daemon.
An agent is a program written with LangChain, LangGraph or as a plain Python function.
A deployment says which version of an agent should run, and with how many replicas.
A replica is one numbered seat of a deployment; the controller chooses the node that seats it.
A task is a unit of work for an agent, and an attempt is one try at it.
When a node is lost, its replicas are placed on other nodes and its tasks are tried again there.
A graph keeps a checkpoint after every step, so a task that was killed goes on after its last finished step.
To drain a node means to take no new work there and to move what runs to other nodes.
A task that was acknowledged ends exactly once, whatever dies in between.
A deploy whose agent cannot be imported is reverted, and the version before it never stops.
Results wait on the node, on disk, until the controller has them.
Market data is stored in a QuestDB on the node itself, where agents read it with tsdb().
""".strip()

LINES_MAX = 4
COMMON = frozenset(
    ["the", "and", "what", "who", "how", "does", "is", "are", "was", "when", "where", "why", "that", "with"]
)


class State(TypedDict, total=False):
    """What the graph knows."""

    question: str
    context: str
    sources: list[str]
    answer: str


class Answer(TypedDict):
    """What the caller gets."""

    question: str
    answer: str
    sources: list[str]


def look_up(state: State) -> State:
    """The lines of the text that share most words with the question."""
    question = state.get("question")
    if not isinstance(question, str) or not question.strip():
        raise Reject("The input needs a `question`, a text.")
    asked = words(question)
    lines = [line for line in (state.get("context") or KNOWLEDGE).splitlines() if line.strip()]
    ranked = sorted(lines, key=lambda line: -len(asked & words(line)))
    return {"question": question, "sources": [line for line in ranked[:LINES_MAX] if asked & words(line)]}


async def answer(state: State) -> State:
    """Ask the model, with nothing but what was found."""
    if not state["sources"]:
        return {"answer": "The text says nothing about that."}
    messages = [
        ("system", "Answer in one or two sentences, from these notes alone:\n" + "\n".join(state["sources"])),
        ("user", state["question"]),
    ]
    reply = await llm("smart").ainvoke(messages)
    return {"answer": reply.text}


def words(text: str) -> set[str]:
    """The telling words of a text, without their endings for many."""
    stems = re.findall(r"[a-z]{3,}", text.lower())
    return {word.removesuffix("s") for word in stems} - COMMON


builder = StateGraph(State, output_schema=Answer)
builder.add_node("look_up", look_up)
builder.add_node("answer", answer)
builder.add_edge(START, "look_up")
builder.add_edge("look_up", "answer")
graph = builder.compile()
