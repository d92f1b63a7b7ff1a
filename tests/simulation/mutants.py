"""The farm with one thing broken at a time: what a careless change could do. Each must be caught by some checker.

A mutant is a context manager that breaks the running code and mends it afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from agentfarm.wire.link_pb2 import AttemptResult
from controller import turns
from controller.core import parts, restore, turn
from controller.core.agents import placement
from controller.core.agents import seats as seating
from controller.core.commands import AttemptsEnded
from controller.core.lives import NodeState, ReplicaState
from controller.core.model import DeploymentName, FarmState, Instant, Limits, Node, Replica, Task
from controller.core.nodes import life as nodes
from controller.core.policy import Resources
from controller.core.tasks import dispatch
from controller.core.tasks import life as tasks
from controller.core.timers import RetryDue
from controller.core.transition import AckResults, Changes, Transition
from controller.journal.memory import Commit, MemoryJournal
from controller.link import translate
from controller.turns import Pause, Steps, Turns
from nodeagent.core import outbox, rollcall
from nodeagent.core.attempts import Attempts
from nodeagent.core.outbox import Outbox
from nodeagent.core.rollcall import Rollcall
from nodeagent.core.roster import Roster
from nodeagent.core.workload import Workload
from nodeagent.runner.protocol.frames import Run
from nodeagent.runner.protocol.launch import Launch
from nodeagent.runner.replica.lease import ReplicaLease
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.queue import Queue
from nodeagent.runner.zygote.guard import LeaseGuard
from tests.simulation.feed_mutants import FEED_MUTANTS
from tests.simulation.parking_mutants import PARKING_MUTANTS
from tests.simulation.record_mutants import RECORD_MUTANTS

Mutant = Callable[[], AbstractContextManager[Any]]
MUTANTS: dict[str, Mutant] = FEED_MUTANTS | PARKING_MUTANTS | RECORD_MUTANTS


def mutant(make: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[Any]]:
    """Register a mutant under its name."""
    made = contextmanager(make)
    MUTANTS[make.__name__] = made
    return made


def simply(name: str, target: Any, attribute: str, instead: Any) -> None:
    """A mutant that replaces one thing."""
    MUTANTS[name] = lambda: patch.object(target, attribute, instead)


# ------------------------------------------------------------------ fences


@mutant
def result_without_its_token_is_accepted() -> Iterator[None]:
    """The fence is dropped: whoever reports a task's end ends it."""
    real = tasks.attempts_ended

    def accept(now: turn.Turn, command: AttemptsEnded) -> None:
        for result in command.results:
            task, node = now.state.tasks.get(result.task), command.node
            if task is not None and task.token is not None and task.node is not None:
                node, result = task.node, dataclasses.replace(result, token=task.token, replica=None)  # noqa: PLW2901
            real(now, dataclasses.replace(command, node=node, results=(result,)))
        now.acks.setdefault(command.node, []).extend(result.token for result in command.results)

    with patch.dict(parts.HANDLERS, {AttemptsEnded: accept}):
        yield


@mutant
def epoch_of_a_commit_is_not_checked() -> Iterator[None]:
    """A leader that lost the lead goes on writing."""

    def commit(self: MemoryJournal, changes: Changes, epoch: int) -> None:
        assert self._clock is not None
        Commit(self._tables, self._clock).write(changes)

    with patch.object(MemoryJournal, "commit", commit):
        yield


simply("tokens_begin_anew_after_a_restart", restore, "first_token", lambda epoch: 1 << 40)
simply("every_session_is_heard", nodes, "_current", lambda now, name, session: now.state.nodes.get(name))

# ------------------------------------------------------------------ order of things


def before_the_commit(early: Callable[[Turns, Transition], None]) -> AbstractContextManager[Any]:
    """A turn that does something too early."""
    real = Turns._commit

    def commit(self: Turns, transition: Transition) -> Steps:
        early(self, transition)
        yield from real(self, transition)

    return patch.object(Turns, "_commit", commit)


@mutant
def results_are_acknowledged_before_the_commit() -> Iterator[None]:
    def acknowledge(writer: Turns, transition: Transition) -> None:
        writer._world.send([effect for effect in transition.effects if isinstance(effect, AckResults)])

    with before_the_commit(acknowledge):
        yield


@mutant
def callers_are_answered_before_the_commit() -> Iterator[None]:
    def answer(writer: Turns, transition: Transition) -> None:
        batch, writer.batch = writer.batch, [(command, None) for command, _ in writer.batch]
        answers = transition.answers
        writer._world.answer([(caller, answers[at]) for at, (_, caller) in enumerate(batch) if caller is not None])

    with before_the_commit(answer):
        yield


@mutant
def leases_are_sent_before_the_commit() -> Iterator[None]:
    def send(writer: Turns, transition: Transition) -> None:
        effects, transition.effects = transition.effects, []
        writer._world.send(effects)

    with before_the_commit(send):
        yield


@mutant
def watchers_hear_before_the_commit() -> Iterator[None]:
    def tell(writer: Turns, transition: Transition) -> None:
        assert writer.state is not None
        writer._world.tell(transition, writer.state)

    with before_the_commit(tell):
        yield


@mutant
def state_outlives_a_failed_commit() -> Iterator[None]:
    """The turn failed, and the writer goes on with what it had decided."""

    def recover(self: Turns, problem: Exception) -> Steps:
        self._world.answer(self.give_up(problem))
        yield Pause(0.0)

    with patch.object(Turns, "_recover", recover):
        yield


simply("memory_is_lost_with_a_refused_turn", turns, "keep_live", lambda state, before: None)
simply("idempotency_keys_are_not_looked_up", turns, "_idempotency_keys", lambda commands: [])
simply("lead_is_not_proven_again", turns, "LEAD_CHECK_S", float("inf"))

# ------------------------------------------------------------------ leases and time


@mutant
def lease_row_is_deleted_with_its_first_lease() -> Iterator[None]:
    real = turn.Turn.end_lease

    def end_lease(self: turn.Turn, task: Task, deployment: Any) -> None:
        batch, held = task.lease_batch, self.state.lease_batches.get(task.lease_batch, 0)
        real(self, task, deployment)
        if task.token is not None and held > 1:
            self.state.lease_batches.pop(batch, None)
            self.out.changes.ended_lease_batches.append(batch)

    with patch.object(turn.Turn, "end_lease", end_lease):
        yield


@mutant
def leases_are_issued_again_too_early() -> Iterator[None]:
    real = nodes.check_silence

    def check_silence(now: turn.Turn) -> None:
        limits, now.state.limits = now.state.limits, dataclasses.replace(now.state.limits, reissue_after_s=4.0)
        real(now)
        now.state.limits = limits

    with patch.object(nodes, "check_silence", check_silence):
        yield


@mutant
def leases_found_at_start_are_void() -> Iterator[None]:
    """A new controller does not wait for the nodes to come back."""
    real = restore._hear

    def hear(state: FarmState, now: Instant) -> None:
        real(state, now)
        for node in state.nodes.values():
            node.last_heard = 0.0

    with patch.object(restore, "_hear", hear):
        yield


@mutant
def nodes_trust_their_leases_too_long() -> Iterator[None]:
    """Welcome says so: T1 is beyond T2."""
    real = translate.welcome

    def welcome(epoch: int, limits: Limits, beat_interval_s: float, stop_exclusive_after_s: float) -> Any:
        return real(epoch, limits, beat_interval_s, 30.0)

    with patch.object(translate, "welcome", welcome):
        yield


@mutant
def exclusive_attempts_are_left_to_the_daemon() -> Iterator[None]:
    """A daemon that is dead or stopped ends nothing; its replicas must look at the lease themselves."""
    with (
        patch.object(ReplicaLease, "is_over", lambda self, now: False),
        patch.object(LeaseGuard, "overdue", lambda self, now: []),
    ):
        yield


@mutant
def new_daemon_trusts_a_lease_it_never_saw() -> Iterator[None]:
    """A daemon that was just started tells those that it finds of a lease that begins with it."""
    real = Roster.call_roll

    def call_roll(self: Roster, done: Callable[[], object]) -> Rollcall:
        self._clock.call_at(self._clock.time() + 0.05, lambda: self.lease_renewed(self._clock.time() + 6.0))
        return real(self, done)

    with patch.object(Roster, "call_roll", call_roll):
        yield


simply("silent_exclusive_work_goes_on_beside_hello", rollcall, "may_go_on_unheard", lambda seat: True)
simply("nobody_looks_after_a_replica_that_does_not_look", LeaseGuard, "overdue", lambda self, now: [])
simply("exclusive_replicas_outlive_their_zygotes", Launch, "ends_with_zygote", False)


@mutant
def orders_are_obeyed_after_the_lease_is_over() -> Iterator[None]:
    """A daemon that was stopped finds an old order in its socket when it goes on."""
    real = Queue.begin

    def begin(self: Queue, running: int) -> Run | None:
        with patch.object(ReplicaLease, "is_over", lambda self, now: False):
            return real(self, running)

    with patch.object(Queue, "begin", begin), patch.object(Workload, "_is_too_late", lambda self, item: False):
        yield


simply("daemon_says_hello_without_what_runs", Attempts, "tokens", ())


# ------------------------------------------------------------------ work that is lost or done too often


@mutant
def what_never_arrived_is_not_given_back() -> Iterator[None]:
    real = turn.Turn.give_back

    def give_back(self: turn.Turn, task: Task, outcome: Any, reason: str) -> None:
        if reason != "never_arrived":
            real(self, task, outcome, reason)

    with patch.object(turn.Turn, "give_back", give_back):
        yield


simply("poison_is_never_seen", tasks, "CRASH_ERRORS", frozenset())
simply("permanent_errors_are_tried_again", tasks, "PERMANENT_ERRORS", frozenset())
simply("failures_are_not_counted", tasks, "max_attempts", lambda policy, options: 1_000)


@mutant
def backoff_never_ends() -> Iterator[None]:
    with patch.dict(parts.TIMERS, {RetryDue: lambda now, timer: None}):
        yield


simply("node_that_is_back_gets_nothing", nodes, "_touch_queues", lambda now, node: None)


@mutant
def queued_task_of_a_removed_agent_is_forgotten() -> Iterator[None]:
    real = turn.Turn.requeue

    def requeue(self: turn.Turn, task: Task, outcome: Any, **more: Any) -> None:
        deployment = self.state.deployments[task.deployment]
        was, deployment.is_removed = deployment.is_removed, False
        real(self, task, outcome, **more)
        deployment.is_removed = was

    with patch.object(turn.Turn, "requeue", requeue):
        yield


# ------------------------------------------------------------------ results


@mutant
def results_are_kept_before_they_are_safe() -> Iterator[None]:
    """The replica forgets a result that only the daemon's memory holds, and the disk has time."""
    real = Outbox.keep

    def keep(self: Outbox, results: Iterable[AttemptResult], replica_id: int) -> None:
        real(self, results, replica_id)
        self._on_kept([(result.fencing_token, replica_id) for result in results])

    with patch.object(Outbox, "keep", keep), patch.object(outbox, "STORE_AFTER_S", 5.0):
        yield


@mutant
def replica_forgets_a_result_once_it_is_said() -> Iterator[None]:
    """The daemon that heard it may die with it."""
    real = Ledger.snapshot

    def snapshot(self: Ledger) -> tuple[list[tuple[int, int, bool]], list[bytes]]:
        return real(self)[0], []

    with patch.object(Ledger, "snapshot", snapshot):
        yield


simply("stored_results_are_not_read_back", Outbox, "restore", lambda self, rows: None)

# ------------------------------------------------------------------ places


def _blocked_by_silence_alone(node: Node) -> tuple[placement.Refusal, ...]:
    is_heard = node.state is NodeState.READY and node.session
    return () if is_heard else (placement.Refusal(placement.Reason.NOT_READY),)


simply("cordon_is_ignored", seating, "blocked", _blocked_by_silence_alone)


@mutant
def promises_are_not_counted() -> Iterator[None]:
    real = placement.Offer.take

    def take(self: placement.Offer, deployment: DeploymentName, need: Resources) -> None:
        real(self, deployment, Resources(0, 0))

    with patch.object(placement.Offer, "take", take):
        yield


@mutant
def drain_is_complete_when_nothing_new_is_taken() -> Iterator[None]:
    real = nodes.check_drained

    def check_drained(now: turn.Turn, node: Node) -> None:
        replicas = [now.state.replicas[it] for it in node.replicas]
        kept = node.replicas
        if all(replica.is_retiring for replica in replicas):
            node.replicas = set()
        real(now, node)
        node.replicas = kept

    with patch.object(nodes, "check_drained", check_drained):
        yield


@mutant
def strays_are_forgotten() -> Iterator[None]:
    """A node that was lost and came back is called empty while processes remain."""
    real = nodes.check_drained

    def check_drained(now: turn.Turn, node: Node) -> None:
        node.strays = set()
        real(now, node)

    with patch.object(nodes, "check_drained", check_drained):
        yield


def _any_that_runs(now: turn.Turn, replica: Replica) -> bool:
    return replica.state in (ReplicaState.RUNNING, ReplicaState.STOPPING) and replica.node is not None


simply("retiring_replicas_get_work", dispatch, "is_open", _any_that_runs)
