"""Dispatch: which replica takes which task.

Within a deployment: highest priority first, first come first served inside a priority, to the replica that holds least.
A replica may hold as many attempts as its concurrency; where attempts are short, a few more wait at it, so that it is
never idle for the length of a round trip. Long work is never parked behind other work, and what was parked behind work
that turned out long is called back (`recall`).

A task that names market products goes to a replica whose node holds all of them, if one is free; else to any.
"""

from __future__ import annotations

import heapq

from controller.core.lives import NodeState, ReplicaState, TaskState, move_task
from controller.core.model import Deployment, FarmState, Limits, NodeName, Replica, Task, Token
from controller.core.tasks.life import run_timeout_s, thread_id
from controller.core.transition import Assign, Lease, LeaseBatch
from controller.core.turn import Turn

Hand = tuple[int, int, Replica, int]  # a replica that can take more: attempts held, id, replica, window


def dispatch(turn: Turn) -> None:
    """Lease queued tasks of every touched deployment, and prepare one Assign and one lease row per node."""
    state = turn.state
    names, state.undispatched = turn.dispatch | state.undispatched, set()
    assigns: dict[NodeName, Assign] = {}
    bytes_sent: dict[NodeName, int] = {}
    for name in sorted(names):
        deployment = state.deployments.get(name)
        if deployment is not None and deployment.queued and not _lease_queued(turn, deployment, assigns, bytes_sent):
            state.undispatched.add(name)
    turn.out.effects.extend(assigns.values())
    turn.out.changes.lease_batches.extend(turn.batches.values())
    for batch in turn.batches.values():
        state.lease_batches[batch.id] = len(batch.tasks)


def window(limits: Limits, deployment: Deployment, concurrency: int) -> int:
    """How many attempts one replica may hold: its concurrency, times what it does within the horizon."""
    service_s = deployment.service_s
    if service_s is None or service_s >= limits.prefetch_horizon_s:
        return concurrency
    return concurrency * min(limits.prefetch_max, 1 + int(limits.prefetch_horizon_s / max(service_s, 1e-6)))


def room_at(state: FarmState, deployment: Deployment, replica: Replica, mono: float) -> int:
    """How many attempts this replica may hold now: the window, but only its concurrency while it is stalled.

    What a replica works on now may be longer than all that was measured before. So the estimate grows with its age:
    when nothing has ended there for the horizon, nothing more is parked behind it.
    """
    concurrency = deployment.versions[replica.version].policy.concurrency
    if replica.tokens and mono - replica.progressed_at >= state.limits.prefetch_horizon_s:
        return concurrency
    return window(state.limits, deployment, concurrency)


def is_open(turn: Turn, replica: Replica) -> bool:
    """Whether a replica may be given work at all."""
    if replica.state is not ReplicaState.RUNNING or replica.is_retiring or replica.node is None:
        return False
    node = turn.state.nodes[replica.node]
    return bool(node.session) and node.state is NodeState.READY


def _lease_queued(
    turn: Turn, deployment: Deployment, assigns: dict[NodeName, Assign], bytes_sent: dict[NodeName, int]
) -> bool:
    """Lease until the queue or the replicas are exhausted. False: stopped by a byte limit, go on next turn."""
    state, limits = turn.state, turn.state.limits
    free: list[Hand] = []
    for replica_id in deployment.replicas:
        replica = state.replicas[replica_id]
        if is_open(turn, replica):
            size = room_at(turn.state, deployment, replica, turn.now.mono)
            if len(replica.tokens) < size:
                free.append((len(replica.tokens), replica.id, replica, size))
    heapq.heapify(free)
    while free:
        held, _, replica, size = free[0]
        assert replica.node is not None
        if bytes_sent.get(replica.node, 0) >= limits.assign_bytes_max:
            return False
        task = _next_task(turn, deployment)
        if task is None:
            return True
        if task.options is not None and task.options.products:
            _put_first(free, _nearest(turn, task.options.products, free, bytes_sent))
            held, _, replica, size = free[0]
        assert replica.node is not None
        _lease(turn, task, deployment, replica, assigns)
        bytes_sent[replica.node] = bytes_sent.get(replica.node, 0) + task.input_size + 64
        if held + 1 < size:
            heapq.heapreplace(free, (held + 1, replica.id, replica, size))
        else:
            heapq.heappop(free)
    return True


def _nearest(turn: Turn, products: tuple[str, ...], free: list[Hand], bytes_sent: dict[NodeName, int]) -> int:
    """The place among the free replicas of the least busy one whose node holds all products; 0, the head, if none."""
    nodes, limit = turn.state.nodes, turn.state.limits.assign_bytes_max
    near = [
        (held, replica_id, place)
        for place, (held, replica_id, replica, _) in enumerate(free)
        if replica.node is not None
        and bytes_sent.get(replica.node, 0) < limit
        and all(name in nodes[replica.node].products or name in nodes[replica.node].assigned for name in products)
    ]
    return min(near)[2] if near else 0


def _put_first(free: list[Hand], place: int) -> None:
    """Put one replica at the head, as if it were the least busy; sorted, what follows is a heap in any place."""
    if place:
        chosen = free.pop(place)
        free.sort()
        free.insert(0, chosen)


def _next_task(turn: Turn, deployment: Deployment) -> Task | None:
    """Take the next queued task off the queues. Ids of tasks that were cancelled meanwhile are skipped."""
    tasks = turn.state.tasks
    for priority in sorted(deployment.queues, reverse=True):
        queue = deployment.queues[priority]
        while queue:
            task = tasks.get(queue.popleft())
            if task is not None and task.state is TaskState.QUEUED:
                return task
        del deployment.queues[priority]
    return None


def _lease(turn: Turn, task: Task, deployment: Deployment, replica: Replica, assigns: dict[NodeName, Assign]) -> None:
    state = turn.state
    assert replica.node is not None
    node = state.nodes[replica.node]
    policy = deployment.versions[replica.version].policy
    state.next_token += 1
    token = Token(state.next_token)
    batch = turn.batches.get(node.name)
    if batch is None:
        batch = turn.batches[node.name] = LeaseBatch(state.next_batch, node.name, turn.now.wall, [], [], [], [])
        state.next_batch += 1
    task.state = move_task(task.state, "leased")
    task.attempt += 1
    task.token, task.replica, task.node = token, replica.id, node.name
    task.leased_at, task.lease_batch = turn.now.wall, batch.id
    turn.drop_input(task)
    deployment.queued -= 1
    deployment.leased += 1
    if not replica.tokens:
        replica.progressed_at = turn.now.mono
    elif len(replica.tokens) >= policy.concurrency:
        state.ahead.add(replica.id)
    replica.tokens.add(token)
    state.by_token[token] = task.id
    batch.tasks.append(task.id)
    batch.attempts.append(task.attempt)
    batch.tokens.append(token)
    batch.replicas.append(replica.id)
    assign = assigns.get(node.name)
    if assign is None:
        assign = assigns[node.name] = Assign(node.name, node.session, [])
    assign.leases.append(
        Lease(task.id, task.attempt, token, replica.id, task.input, run_timeout_s(policy, task.options),
              thread_id(task), policy.exclusive)
    )  # fmt: skip
