"""The plan from what should be here to what must be done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence, SeatPlan, plan_seats

ids = st.integers(1, 8)
presents = st.dictionaries(ids, st.sampled_from(Presence))
desireds = st.dictionaries(ids, st.booleans()).map(
    lambda wanted: [wire.DesiredReplica(replica_id=i, stopping=stopping) for i, stopping in wanted.items()]
)


def carried_out(plan: SeatPlan, present: dict[int, Presence]) -> dict[int, Presence]:
    """What is here once the plan is done."""
    after = dict(present)
    after.update({item.replica_id: Presence.ACTIVE for item in plan.start})
    after.update(dict.fromkeys(plan.retire, Presence.RETIRING))
    after.update(dict.fromkeys(plan.stop, Presence.STOPPING))
    return {replica_id: presence for replica_id, presence in after.items() if replica_id not in plan.forget}


@given(desireds, presents)
def test_a_plan_carried_out_leaves_nothing_to_do(
    desired: list[wire.DesiredReplica], present: dict[int, Presence]
) -> None:
    assert plan_seats(desired, carried_out(plan_seats(desired, present), present)).is_empty


@given(desireds, presents)
def test_only_what_is_listed_and_not_here_is_started(
    desired: list[wire.DesiredReplica], present: dict[int, Presence]
) -> None:
    started = {item.replica_id for item in plan_seats(desired, present).start}
    assert started == {item.replica_id for item in desired if not item.stopping} - present.keys()


@given(desireds, presents)
def test_what_is_not_listed_ends_and_what_is_listed_is_never_forced(
    desired: list[wire.DesiredReplica], present: dict[int, Presence]
) -> None:
    plan = plan_seats(desired, present)
    listed = {item.replica_id for item in desired}
    assert not listed & {*plan.stop, *plan.forget}
    assert {i for i, presence in present.items() if i not in listed} == {
        *plan.stop, *plan.forget, *(i for i, p in present.items() if i not in listed and p is Presence.STOPPING),
    }  # fmt: skip


def test_one_that_ended_is_not_started_again_and_one_that_never_was_is_told_as_stopped() -> None:
    desired = [wire.DesiredReplica(replica_id=1), wire.DesiredReplica(replica_id=2, stopping=True)]
    plan = plan_seats(desired, {1: Presence.ENDED})
    assert plan.is_empty
    assert plan.report_stopped == (2,)
