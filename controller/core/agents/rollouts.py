"""Seats: what runs is brought to what is wanted, seat by seat, and a version that cannot run is taken back.

A seat is taken over, never swapped: the newcomer is placed beside the old occupant, and only when it runs does the old
one retire (it finishes its attempts, then stops). The same rule serves new versions and draining nodes. Where a full
farm has no place beside it, see `room`.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentfarm.backoff import longest_s
from controller.core.lives import LIVE_REPLICA_STATES, ReplicaState
from controller.core.model import Deployment, Replica, ReplicaId
from controller.core.timers import PlaceAgain, RolloutDeadline
from controller.core.turn import Turn

FATAL_REASONS = frozenset({"import_failed", "environment_failed", "bundle_failed", "crash_loop"})
SEAT_BACKOFF_MAX_S = 60.0


def reconcile_seats(turn: Turn) -> None:
    """Compare every touched deployment with what is wanted, until nothing more follows."""
    while turn.seats:
        for name in sorted(turn.seats):
            turn.seats.discard(name)
            deployment = turn.state.deployments.get(name)
            if deployment is not None:
                _reconcile(turn, deployment)


def replica_failed(turn: Turn, replica: Replica, reason: str, detail: str) -> None:
    """A node gave up on a replica. During its version's rollout that takes the version back; else the seat waits."""
    deployment = turn.state.deployments[replica.deployment]
    turn.tell("replica.failed", f"{deployment.name}/{replica.seat} failed on {replica.node}: {reason}",
              severity="error", node=replica.node, deployment=deployment.name, replica=replica.id,
              version=replica.version, reason=reason, detail=detail[-4000:])  # fmt: skip
    if replica.is_retiring:  # it was on its way out
        turn.end_replica(replica, "failed", reason=reason, detail=detail)
        return
    failures = deployment.seat_failures.get(replica.seat, 0) + 1
    deployment.seat_failures[replica.seat] = failures
    turn.changed(deployment)
    turn.end_replica(replica, "failed", reason=reason, detail=detail)
    rollout = deployment.rollout
    if (
        rollout is not None
        and rollout.state == "progressing"
        and replica.version == rollout.to_version
        and reason in FATAL_REASONS
    ):
        _take_back(turn, deployment, reason, detail)


def rollout_deadline(turn: Turn, timer: RolloutDeadline) -> None:
    """A step of the rollout took too long: take it back, unless it only waits for room or for a silent node."""
    deployment = turn.state.deployments.get(timer.deployment)
    if deployment is None or deployment.rollout is None or deployment.rollout.state != "progressing":
        return
    rollout = deployment.rollout
    if turn.now.mono < rollout.deadline:
        turn.at(rollout.deadline, timer)
        return
    newcomers = [r for r in occupants_of(turn, deployment) if r.version == rollout.to_version and not r.is_retiring]
    if any(r.state in (ReplicaState.STARTING, ReplicaState.UNHEALTHY) and _is_heard(turn, r) for r in newcomers):
        _take_back(turn, deployment, "not_healthy_in_time", "A new replica did not run before its deadline.")
        return
    _extend(turn, deployment)
    turn.at(rollout.deadline, timer)


def replica_placed(turn: Turn, replica: Replica) -> None:
    """A newcomer has a node: it has the whole time from here."""
    deployment = turn.state.deployments[replica.deployment]
    rollout = deployment.rollout
    if rollout is not None and rollout.state == "progressing" and replica.version == rollout.to_version:
        _extend(turn, deployment)


def _is_heard(turn: Turn, replica: Replica) -> bool:
    return replica.node is not None and bool(turn.state.nodes[replica.node].session)


# ------------------------------------------------------------------ one deployment


def _reconcile(turn: Turn, deployment: Deployment) -> None:
    by_seat: dict[int, list[Replica]] = {seat: [] for seat in range(deployment.replicas_wanted)}
    for replica in occupants_of(turn, deployment):
        by_seat.setdefault(replica.seat, []).append(replica)
    taking_over = sum(_is_taken_over(turn, deployment, by_seat[seat]) for seat in range(deployment.replicas_wanted))
    surge = surge_of(deployment)
    for seat in sorted(by_seat):
        occupants = by_seat[seat]
        if seat >= deployment.replicas_wanted:
            retire(turn, occupants)
            continue
        good, old = _sorted_out(turn, deployment, occupants)
        idle = [r for r in old if _never_served(deployment, r)]
        retire(turn, idle)  # they never served, and the newcomer may need their room
        old = [r for r in old if r not in idle]
        if good:
            retire(turn, good[1:])
            if good[0].state is ReplicaState.RUNNING:
                retire(turn, old)
        elif not deployment.is_halted and (not old or taking_over < surge):
            taking_over += bool(old)
            _seat(turn, deployment, seat)
    _check_rollout(turn, deployment, by_seat)
    if deployment.is_removed and not deployment.replicas:
        _forget(turn, deployment)


def surge_of(deployment: Deployment) -> int:
    """How many seats may be taken over at once."""
    return max(1, deployment.replicas_wanted // 4)


def occupants_of(turn: Turn, deployment: Deployment) -> list[Replica]:
    """Every replica of a deployment, by id."""
    return [turn.state.replicas[replica] for replica in sorted(deployment.replicas)]


def _sorted_out(turn: Turn, deployment: Deployment, occupants: list[Replica]) -> tuple[list[Replica], list[Replica]]:
    """Those of a seat's occupants that may stay, the one that runs first, and those to be relieved."""
    staying = [r for r in occupants if not r.is_retiring]
    good = [r for r in staying if _is_wanted(turn, deployment, r)]
    good.sort(key=lambda r: r.state is not ReplicaState.RUNNING)
    return good, [r for r in staying if not _is_wanted(turn, deployment, r)]


def _never_served(deployment: Deployment, replica: Replica) -> bool:
    if replica.state is ReplicaState.PENDING:
        return True
    return replica.state is ReplicaState.STARTING and not deployment.versions[replica.version].has_run


def _is_taken_over(turn: Turn, deployment: Deployment, occupants: list[Replica]) -> bool:
    """Whether a newcomer gets ready beside an occupant that still serves."""
    good, old = _sorted_out(turn, deployment, occupants)
    return bool(good and old) and good[0].state is not ReplicaState.RUNNING


def _is_wanted(turn: Turn, deployment: Deployment, replica: Replica) -> bool:
    """Whether a replica is of the right version and where it may stay."""
    if replica.version != deployment.version:
        return False
    return replica.node is None or turn.state.nodes[replica.node].drain is None


def _seat(turn: Turn, deployment: Deployment, seat: int) -> None:
    """Make a new occupant that wants a node; after failures it waits first."""
    state = turn.state
    failures = deployment.seat_failures.get(seat, 0)
    wait_s = longest_s(failures, state.limits.seat_backoff_s, SEAT_BACKOFF_MAX_S)
    replica = Replica(
        ReplicaId(state.next_replica), deployment.name, seat, deployment.version, since=turn.now.wall,
        not_before=turn.now.mono + wait_s,
    )  # fmt: skip
    state.next_replica += 1
    state.replicas[replica.id] = replica
    deployment.replicas.add(replica.id)
    state.pending[replica.id] = None
    turn.changed(replica)
    turn.is_placing = True
    if wait_s:
        turn.at(replica.not_before, PlaceAgain())


def retire(turn: Turn, replicas: Iterable[Replica]) -> None:
    """Give them no new work; the node stops each once it holds none."""
    for replica in replicas:
        if replica.state is ReplicaState.PENDING:
            turn.move(replica, "stop", reason="not wanted")
            turn.remove_replica(replica)
        elif not replica.is_retiring or replica.state is ReplicaState.STARTING:
            replica.is_retiring = True
            turn.changed(replica)
            if replica.state in LIVE_REPLICA_STATES and replica.state is not ReplicaState.STOPPING:
                turn.move(replica, "stop", reason="retired")
            assert replica.node is not None
            turn.desired.add(replica.node)


def _forget(turn: Turn, deployment: Deployment) -> None:
    if deployment.queued or deployment.leased:
        return
    del turn.state.deployments[deployment.name]
    for version in deployment.versions.values():
        turn.removed(version)
    turn.removed(deployment)
    turn.tell("deployment.forgotten", f"nothing of {deployment.name} is left", deployment=deployment.name)


# ------------------------------------------------------------------ one rollout


def _check_rollout(turn: Turn, deployment: Deployment, by_seat: dict[int, list[Replica]]) -> None:
    """Complete once every seat's wanted occupant runs and no other is left that takes work."""
    rollout = deployment.rollout
    running = [r for seat in by_seat.values() for r in seat
               if r.state is ReplicaState.RUNNING and r.version == deployment.version]  # fmt: skip
    if running and not deployment.versions[deployment.version].has_run:
        deployment.versions[deployment.version].has_run = True
        turn.changed(deployment.versions[deployment.version])
    if rollout is None or rollout.state != "progressing" or deployment.is_removed:
        return
    if len(running) > rollout.seats_done:
        rollout.seats_done = len(running)
        _extend(turn, deployment)
    done = {r.seat for r in running if not r.is_retiring}
    stale = [r for seat in by_seat.values() for r in seat if not r.is_retiring and r.version != deployment.version]
    if len(done) >= deployment.replicas_wanted and not stale:
        rollout.state = "complete"
        turn.changed(deployment)
        turn.tell("deployment.complete", f"{deployment.name}: version {rollout.to_version} runs on every seat",
                  deployment=deployment.name, version=rollout.to_version, replicas=len(done))  # fmt: skip


def _extend(turn: Turn, deployment: Deployment) -> None:
    assert deployment.rollout is not None
    deployment.rollout.deadline = turn.now.mono + turn.policy(deployment).healthy_deadline_s
    turn.changed(deployment)


def _take_back(turn: Turn, deployment: Deployment, reason: str, detail: str) -> None:
    """Return to the version that ran before, whose replicas were never touched; without one, halt."""
    rollout = deployment.rollout
    assert rollout is not None
    rollout.reason, rollout.detail = reason, detail
    if rollout.from_version is None:
        rollout.state = "failed"
        deployment.is_halted = True
        turn.tell("deployment.failed", f"{deployment.name}: version {rollout.to_version} cannot run: {reason}",
                  severity="error", deployment=deployment.name, reason=reason)  # fmt: skip
    else:
        rollout.state = "reverted"
        deployment.version = rollout.from_version
        turn.tell("deployment.reverted", f"{deployment.name}: version {rollout.to_version} was taken back: {reason}",
                  severity="error", deployment=deployment.name, reason=reason,
                  version=rollout.from_version)  # fmt: skip
    deployment.seat_failures.clear()
    newcomers = [r for r in occupants_of(turn, deployment) if r.version == rollout.to_version]
    retire(turn, [r for r in newcomers if r.state is not ReplicaState.RUNNING])  # those that run give way in turn
    turn.changed(deployment)
    turn.seats.add(deployment.name)
    turn.dispatch.add(deployment.name)
