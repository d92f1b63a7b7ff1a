"""Recall: what waits at a replica behind work that turned out long is called back, so that others can take it.

Short work is parked at replicas by what it took before (`dispatch.window`). When the attempt ahead takes ten minutes
instead, those behind it would wait ten minutes beside idle replicas. So the core looks now and then at what has waited
unstarted for longer than `recall_after_s` while another replica of the deployment gets on with its work, and asks the
node for it. The replica answers exactly, under the lock with which it begins attempts: what it has not begun it will
never begin, and it is given back at no cost to the task; what it has begun goes on. The lease stands until that answer,
so a request that is lost, or that meets a result on its way, changes nothing: it is made again.

Nothing is recalled when all replicas are as slow: it would wait elsewhere, or come back to the same place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from controller.core.lives import TaskState
from controller.core.model import Deployment, DeploymentName, Replica, Token
from controller.core.tasks.dispatch import is_open
from controller.core.transition import RecallAttempts
from controller.core.turn import Turn

RECALL_CHECK_S: Final = 0.25


@dataclass(slots=True)
class Lookout:
    """What recall keeps between turns."""

    next_check: float = 0.0
    """mono"""
    marks: deque[tuple[float, Token]] = field(default_factory=deque)
    """Moments (mono) and the newest token then: how old a lease is."""


def recall_parked(turn: Turn) -> None:
    """Ask for what has waited unstarted for too long at replicas that others could relieve."""
    state, lookout = turn.state, turn.state.own(Lookout)
    if not state.ahead:
        lookout.marks.clear()
        return
    if turn.now.mono < lookout.next_check:
        return
    lookout.next_check = turn.now.mono + RECALL_CHECK_S
    overdue: dict[DeploymentName, list[Replica]] = {}
    newest = _newest_overdue(turn)
    for replica_id in sorted(state.ahead):
        replica = state.replicas.get(replica_id)
        if replica is None or len(replica.tokens) <= _concurrency(turn, replica):
            state.ahead.discard(replica_id)
        elif min(replica.tokens) <= newest and parked(turn, replica)[0] <= newest:
            overdue.setdefault(replica.deployment, []).append(replica)
    for name, replicas in overdue.items():
        if _is_relief(turn, state.deployments[name], replicas):
            for replica in replicas:
                _recall(turn, replica)


def parked(turn: Turn, replica: Replica) -> list[Token]:
    """What the replica has not begun, oldest first: it begins them in the order in which they were leased."""
    return sorted(replica.tokens)[_concurrency(turn, replica) :]


def _newest_overdue(turn: Turn) -> Token:
    """The newest token that was leased longer ago than an attempt may wait: tokens only grow, so all below are older.

    To know a few marks is cheaper than to keep the moment of every lease.
    """
    marks, limit = turn.state.own(Lookout).marks, turn.now.mono - turn.state.limits.recall_after_s
    marks.append((turn.now.mono, Token(turn.state.next_token)))
    while len(marks) > 1 and marks[1][0] <= limit:
        marks.popleft()
    return marks[0][1] if marks[0][0] <= limit else Token(0)


def _concurrency(turn: Turn, replica: Replica) -> int:
    return turn.state.deployments[replica.deployment].versions[replica.version].policy.concurrency


def _is_relief(turn: Turn, deployment: Deployment, overdue: list[Replica]) -> bool:
    """Whether another replica has a free hand, or gets on with its work so that it soon will have."""
    stalled_since = turn.now.mono - turn.state.limits.recall_after_s
    return any(
        is_open(turn, replica)
        and (len(replica.tokens) < _concurrency(turn, replica) or replica.progressed_at > stalled_since)
        for replica in (turn.state.replicas[replica_id] for replica_id in deployment.replicas)
        if replica not in overdue
    )


def _recall(turn: Turn, replica: Replica) -> None:
    state, now = turn.state, turn.now.mono
    node = state.nodes[replica.node] if replica.node is not None else None
    if node is None or not node.session or now - replica.recalled_at < state.limits.recall_after_s:
        return
    tasks = [state.tasks[state.by_token[token]] for token in parked(turn, replica)]
    tokens = [t.token for t in tasks if t.token and t.state is TaskState.LEASED and not t.is_cancelling]
    if not tokens:
        return
    if replica.recalled_at <= replica.progressed_at:  # once for each time that it stalls
        first, place = state.by_token[min(replica.tokens)], f"{replica.deployment}/{replica.seat}"
        turn.tell("attempts.recalled", f"{len(tokens)} tasks that wait at {place} behind task {first} go to others",
                  node=node.name, deployment=replica.deployment, replica=replica.id, task=first, attempts=len(tokens),
                  stalled_s=round(now - replica.progressed_at, 3))  # fmt: skip
    replica.recalled_at = now
    turn.out.effects.append(RecallAttempts(node.name, node.session, tokens))
