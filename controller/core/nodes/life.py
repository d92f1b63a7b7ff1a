"""The life of a node: joined, silent, lost, back again; cordoned and drained."""

from __future__ import annotations

from dataclasses import dataclass

from agentfarm.errors import Conflict, FarmError, Forbidden, InvalidRequest, NotFound
from controller.core.agents.rollouts import replica_failed
from controller.core.commands import (
    AddNode,
    Cordon,
    ForgetNode,
    MarketReported,
    NodeBeat,
    NodeJoined,
    NodeStreamEnded,
    ReplicaNews,
    ReplicasReported,
    StartDrain,
    Uncordon,
)
from controller.core.lives import ENDED_REPLICA_STATES, LIVE_REPLICA_STATES, NodeState, Outcome, ReplicaState, move_node
from controller.core.model import Drain, Node, NodeName, Replica
from controller.core.timers import DrainDeadline
from controller.core.transition import AckBeat
from controller.core.turn import Turn

FAILURES_HALVED_EACH_S = 60.0
SILENCE_CHECK_S = 0.1  # with hundreds of nodes there are hundreds of turns a second: not each looks at every node
STALL_S = 1.0  # the controller itself was away for this long: no node's silence counts for that time


# ------------------------------------------------------------------ by operators


def add(turn: Turn, command: AddNode) -> None:
    """Make the node known; it joins when its daemon connects."""
    if command.node not in turn.state.nodes:
        node = turn.state.nodes[command.node] = Node(command.node)
        turn.changed(node)
        turn.tell("node.added", f"node {node.name} may join", node=node.name)


def cordon(turn: Turn, command: Cordon) -> FarmError | None:
    """Place nothing new on the node."""
    node = turn.state.nodes.get(command.node)
    if node is None:
        return _unknown(turn, command.node)
    node.is_cordoned, node.cordon_reason = True, command.reason
    turn.changed(node)
    turn.tell("node.cordoned", f"node {node.name} takes no new replicas", node=node.name, reason=command.reason)
    return None


def uncordon(turn: Turn, command: Uncordon) -> FarmError | None:
    """The node may take replicas again; a drain in progress ends, what was moved stays where it is."""
    node = turn.state.nodes.get(command.node)
    if node is None:
        return _unknown(turn, command.node)
    node.is_cordoned, node.cordon_reason, node.drain = False, "", None
    turn.changed(node)
    turn.is_placing = turn.is_feeding = True
    _touch_seats(turn, node)
    turn.tell("node.uncordoned", f"node {node.name} takes replicas again", node=node.name)
    return None


def start_drain(turn: Turn, command: StartDrain) -> FarmError | None:
    """Cordon, then move every replica and product off; what still runs at the deadline goes back to its queue."""
    node = turn.state.nodes.get(command.node)
    if node is None:
        return _unknown(turn, command.node)
    if command.deadline_s < 0:
        return InvalidRequest("The deadline of a drain cannot lie in the past.")
    node.is_cordoned = True
    node.cordon_reason = command.reason or "drain"
    node.drain = Drain(turn.now.wall, turn.now.mono + command.deadline_s, command.reason, deadline_s=command.deadline_s)
    turn.at(node.drain.deadline, DrainDeadline(node.name))
    turn.changed(node)
    turn.is_feeding = True
    _touch_seats(turn, node)
    turn.desired.add(node.name)
    turn.tell("node.draining", f"node {node.name} is being drained", node=node.name, reason=command.reason,
              deadline_s=command.deadline_s)  # fmt: skip
    return None


def forget(turn: Turn, command: ForgetNode) -> FarmError | None:
    """Strike a node off. Refused while it may still work for us."""
    node = turn.state.nodes.get(command.node)
    if node is None:
        return _unknown(turn, command.node)
    if node.session or node.state in (NodeState.READY, NodeState.UNREACHABLE):
        return Conflict(f"Node {node.name} is {node.state.value}.", remedy="Drain it and stop its daemon first.")
    del turn.state.nodes[node.name]
    turn.removed(node)
    turn.tell("node.forgotten", f"node {node.name} was struck off", node=node.name)
    return None


def drain_deadline(turn: Turn, timer: DrainDeadline) -> None:
    """Time is up: interrupt what still runs there, stop every replica, and give its products up."""
    name = timer.node
    node = turn.state.nodes.get(name)
    if node is None or node.drain is None or turn.now.mono < node.drain.deadline:
        return
    if not node.replicas and not node.assigned:
        check_drained(turn, node)  # its feed had until now to say that it serves nothing for us
        return
    node.drain.is_forced = turn.is_feeding = True
    turn.changed(node)
    for replica in _replicas(turn, node):
        replica.is_retiring = True
        turn.cancel(node, sorted(replica.tokens), "moved")
        if replica.state in (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.UNHEALTHY):
            turn.move(replica, "stop", reason="drain_deadline")
    turn.desired.add(name)
    turn.tell("node.drain_forced", f"the drain of {name} hit its deadline: what ran there was interrupted",
              severity="warning", node=name, replicas=len(node.replicas), products=len(node.assigned))  # fmt: skip


def check_drained(turn: Turn, node: Node) -> None:
    """Say so once nothing is left on a draining node."""
    if node.drain is None or node.drain.is_complete or node.replicas or node.strays or _feeds_for_us(turn, node):
        return
    if node.state in (NodeState.READY, NodeState.JOINING):  # a silent node may still work
        node.drain.is_complete = True
        turn.changed(node)
        turn.tell("node.drained", f"node {node.name} is empty: no process of ours remains there", node=node.name,
                  forced=node.drain.is_forced)  # fmt: skip


def _feeds_for_us(turn: Turn, node: Node) -> bool:
    """Whether it feeds a product that we assigned: until its feed says otherwise, or had the drain's time to say so."""
    assert node.drain is not None
    if node.assigned:
        return True
    if not node.takes_products or turn.now.mono >= node.drain.deadline:
        return False
    return node.fed is None or not node.products.issuperset(node.fed)


# ------------------------------------------------------------------ by their streams


def joined(turn: Turn, command: NodeJoined) -> FarmError | None:
    """A daemon said hello: compare what it holds with what we promised, and settle every difference."""
    node = turn.state.nodes.get(command.node)
    if node is None:
        return Forbidden(f"Node {command.node} is not known here.", remedy="Invite it: farmctl node invite NAME.")
    if node.session != command.session:  # the same comes again where the turn that took it was not stored
        turn.close_session(node, "the node opened a new stream")
    was = node.state
    node.state = move_node(node.state, "hello")
    node.session, node.last_heard = command.session, turn.now.mono
    node.daemon_version = command.daemon_version
    node.cpu_millicores, node.memory_mib, node.gpus = command.cpu_millicores, command.memory_mib, command.gpus
    node.labels, node.capabilities, node.products = command.labels, command.capabilities, command.products
    node.takes_products, node.market_source = command.takes_products, command.market_source
    node.metrics_address = command.metrics_address
    node.measured, node.fed = command.measured, None
    turn.changed(node)
    if was is not NodeState.READY:
        turn.tell("node.ready", f"node {node.name} is ready (was {was.value})", node=node.name, was=was.value,
                  daemon_version=command.daemon_version)  # fmt: skip
    _settle_attempts(turn, node, command)
    _settle_replicas(turn, node, command.replicas)
    turn.desired.add(node.name)
    turn.is_placing = turn.is_feeding = True
    _touch_queues(turn, node)
    return None


def _settle_attempts(turn: Turn, node: Node, command: NodeJoined) -> None:
    state = turn.state
    state.ahead.update(node.replicas)  # a new leader does not know which of them hold more than they can work on
    for replica in _replicas(turn, node):
        replica.recalled_at = 0.0  # what was asked on the old stream may be lost with it
        replica.progressed_at = replica.progressed_at or turn.now.mono
    held = {token for replica in _replicas(turn, node) for token in replica.tokens}
    turn.cancel(node, sorted(command.running - held), "stale")
    for token in sorted(held - command.running - command.finished, reverse=True):  # each goes to the front
        turn.give_back(state.tasks[state.by_token[token]], Outcome.LOST, "never_arrived")
    cancelling = [t for t in sorted(held & command.running) if state.tasks[state.by_token[t]].is_cancelling]
    turn.cancel(node, cancelling, "requested")


def _settle_replicas(turn: Turn, node: Node, news: tuple[ReplicaNews, ...]) -> None:
    named = {item.replica for item in news}
    ended = {item.replica for item in news if item.state in ENDED_REPLICA_STATES}
    node.strays = named - ended - node.replicas  # written off while it was away; its list will stop them
    for item in news:
        _apply_news(turn, node, item)
    for replica in _replicas(turn, node):
        if replica.id in named:
            continue
        if replica.state in (ReplicaState.RUNNING, ReplicaState.UNHEALTHY):
            turn.move(replica, "restarting", reason="not running on the node")
        elif replica.state is ReplicaState.STOPPING:
            turn.end_replica(replica, "gone", reason="stopped")


def beat(turn: Turn, command: NodeBeat) -> None:
    """Alive: every lease of the node goes on."""
    node = _current(turn, command.node, command.session)
    if node is None:
        return
    node.last_heard = turn.now.mono
    turn.out.effects.append(AckBeat(node.name, node.session, command.seq))
    if command.measured is not None:
        node.measured = command.measured
    if node.state is NodeState.UNREACHABLE:
        node.state = move_node(node.state, "beat")
        turn.changed(node)
        turn.is_placing = turn.is_feeding = True
        _touch_queues(turn, node)
        check_drained(turn, node)
        turn.tell("node.ready", f"node {node.name} is heard again", node=node.name, was="unreachable")


def stream_ended(turn: Turn, command: NodeStreamEnded) -> None:
    """The stream broke; the node's leases hold until it was silent for too long."""
    node = _current(turn, command.node, command.session)
    if node is not None:
        node.session = 0


def replicas_reported(turn: Turn, command: ReplicasReported) -> None:
    """News of replicas."""
    node = _current(turn, command.node, command.session)
    if node is not None:
        node.last_heard = turn.now.mono
        for item in command.replicas:
            _apply_news(turn, node, item)


def market_reported(turn: Turn, command: MarketReported) -> None:
    """What a node's feed serves now. Kept in memory only: it says so again after every Hello."""
    node = _current(turn, command.node, command.session)
    if node is not None:
        node.last_heard = turn.now.mono
        node.fed = command.products
        turn.is_feeding = True
        check_drained(turn, node)


def _apply_news(turn: Turn, node: Node, news: ReplicaNews) -> None:
    replica = turn.replica_of(news.replica, node.name)
    if replica is None:
        if news.state in ENDED_REPLICA_STATES and news.replica in node.strays:
            node.strays.discard(news.replica)
            check_drained(turn, node)
        return
    process = (news.pid, news.restarts, news.private_mib, news.ready_ms)
    if process != (replica.pid, replica.restarts, replica.private_mib, replica.ready_ms):
        replica.pid, replica.restarts, replica.private_mib, replica.ready_ms = process
        turn.changed(replica)
    was, state = replica.state, news.state
    if state is ReplicaState.RUNNING and was in (ReplicaState.STARTING, ReplicaState.UNHEALTHY):
        turn.move(replica, "ready")
        turn.tell("replica.running", f"{replica.deployment}/{replica.seat} runs on {node.name}", node=node.name,
                  deployment=replica.deployment, replica=replica.id, version=replica.version,
                  ready_ms=news.ready_ms)  # fmt: skip
    elif state is ReplicaState.STARTING and was in (ReplicaState.RUNNING, ReplicaState.UNHEALTHY):
        turn.move(replica, "restarting", reason=news.reason, detail=news.detail)
        turn.tell("replica.restarting", f"{replica.deployment}/{replica.seat} restarts on {node.name}: {news.reason}",
                  severity="warning", node=node.name, deployment=replica.deployment, replica=replica.id,
                  restarts=news.restarts)  # fmt: skip
    elif state is ReplicaState.UNHEALTHY and was is ReplicaState.RUNNING:
        turn.move(replica, "unhealthy", reason=news.reason, detail=news.detail)
        turn.tell("replica.unhealthy", f"{replica.deployment}/{replica.seat} is unhealthy: {news.reason}",
                  severity="warning", node=node.name, deployment=replica.deployment, replica=replica.id)  # fmt: skip
    elif state is ReplicaState.STOPPED:
        _replica_stopped(turn, replica)
    elif state is ReplicaState.FAILED:
        node.recent_failures += 1
        turn.changed(node)
        replica_failed(turn, replica, news.reason, news.detail)


def _replica_stopped(turn: Turn, replica: Replica) -> None:
    turn.tell("replica.stopped", f"{replica.deployment}/{replica.seat} stopped on {replica.node}", node=replica.node,
              deployment=replica.deployment, replica=replica.id)  # fmt: skip
    turn.end_replica(replica, "gone", reason=replica.reason or "stopped")


# ------------------------------------------------------------------ silence


@dataclass(slots=True)
class Silence:
    """What the watch over nodes keeps between turns. Both are moments (mono)."""

    next_check: float = 0.0
    failures_halved_at: float = 0.0
    """Of every node's recent_failures."""


def check_silence(turn: Turn) -> None:
    """Mark nodes unreachable, then lost. If the controller itself stood still, that time counts against no node."""
    state, limits = turn.state, turn.state.limits
    gap = turn.now.mono - state.last_turn if state.last_turn else 0.0
    state.last_turn = turn.now.mono
    silence = state.own(Silence)
    if turn.now.mono - silence.failures_halved_at >= FAILURES_HALVED_EACH_S:
        silence.failures_halved_at = turn.now.mono
        _halve_failures(turn)
    if gap <= STALL_S and turn.now.mono < silence.next_check:
        return
    silence.next_check = turn.now.mono + SILENCE_CHECK_S
    for node in list(state.nodes.values()):
        if node.state not in (NodeState.READY, NodeState.UNREACHABLE):
            continue
        if gap > STALL_S:
            node.last_heard = min(turn.now.mono, node.last_heard + gap)
        silent_s = turn.now.mono - node.last_heard
        if node.state is NodeState.READY and silent_s >= limits.unreachable_after_s:
            node.state = move_node(node.state, "silent")
            turn.changed(node)
            turn.tell("node.unreachable", f"node {node.name} has been silent for {silent_s:.1f} s",
                      severity="warning", node=node.name)  # fmt: skip
        if node.state is NodeState.UNREACHABLE and silent_s >= limits.reissue_after_s:
            _lose(turn, node, silent_s)


def _halve_failures(turn: Turn) -> None:
    for node in turn.state.nodes.values():
        if node.recent_failures:
            node.recent_failures //= 2
            turn.changed(node)


def _lose(turn: Turn, node: Node, silent_s: float) -> None:
    """The node's leases are void: everything it held is given to others."""
    node.state = move_node(node.state, "lease_expired")
    turn.changed(node)
    turn.close_session(node, "the node was silent for too long")
    node.fed, turn.is_feeding = {}, True
    replicas = _replicas(turn, node)
    turn.tell("node.lost", f"node {node.name} is lost after {silent_s:.1f} s of silence: its work is issued again",
              severity="error", node=node.name, replicas=len(replicas))  # fmt: skip
    for replica in replicas:
        turn.end_replica(replica, "gone", reason="node_lost")


# ------------------------------------------------------------------ helpers


def _replicas(turn: Turn, node: Node) -> list[Replica]:
    return [turn.state.replicas[replica] for replica in sorted(node.replicas)]


def _current(turn: Turn, name: NodeName, session: int) -> Node | None:
    """The node, if that session is the one we talk to."""
    node = turn.state.nodes.get(name)
    return node if node is not None and node.session == session and session else None


def _touch_seats(turn: Turn, node: Node) -> None:
    for replica in _replicas(turn, node):
        if replica.state in LIVE_REPLICA_STATES:
            turn.seats.add(replica.deployment)


def _touch_queues(turn: Turn, node: Node) -> None:
    """The node can be given work again: look at what waits for its replicas."""
    for replica in _replicas(turn, node):
        turn.dispatch.add(replica.deployment)


def _unknown(turn: Turn, name: NodeName) -> NotFound:
    return NotFound(f"There is no node {name!r}.", known=sorted(turn.state.nodes))
