"""Laws of placement, held against a slow and obvious judge."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.agents.placement import Offer, Placements, Reason, Refusal, Wish, fits, place, refusals
from controller.core.model import DeploymentName, NodeName, ReplicaId
from controller.core.policy import Policy, Resources

LABELS = st.dictionaries(st.sampled_from(["zone", "disk"]), st.sampled_from(["a", "b"]), max_size=2)
WORDS = st.frozensets(st.sampled_from(["gpu", "questdb"]), max_size=2)
BLOCKS = st.sampled_from([(), (), (), (Refusal(Reason.CORDONED, "disk"),), (Refusal(Reason.NOT_READY, "lost"),)])


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    made = []
    for number in range(draw(st.integers(0, 8))):
        cpu, memory = draw(st.integers(0, 4000)), draw(st.integers(0, 2000))
        made.append(
            Offer(
                NodeName(f"n{number}"), cpu, memory, draw(st.integers(0, 2)), cpu, memory,
                measured_mib=draw(st.none() | st.integers(0, 2000)), labels=draw(LABELS), capabilities=draw(WORDS),
                blocked=draw(BLOCKS), recent_failures=draw(st.integers(0, 6)),
                seats=draw(st.dictionaries(st.sampled_from([DeploymentName("a"), DeploymentName("b")]),
                                           st.integers(0, 3), max_size=2)),
            )
        )  # fmt: skip
    return made


POLICIES = st.builds(
    Policy,
    resources=st.builds(Resources, st.integers(1, 2000), st.integers(16, 800), st.integers(0, 1)),
    priority=st.integers(-5, 5),
    strategy=st.sampled_from(["spread", "pack"]),
    constraints=st.lists(st.tuples(st.just("zone"), st.sampled_from(["a", "b"])), max_size=1).map(tuple),
    capabilities=WORDS.map(lambda words: tuple(sorted(words))),
    products=st.sampled_from([(), ("BTC-USD",)]),
)


@st.composite
def wishes(draw: st.DrawFn) -> list[Wish]:
    policies = {DeploymentName(name): draw(POLICIES) for name in "abc"}
    names = draw(st.lists(st.sampled_from(sorted(policies)), max_size=20))
    return [Wish(ReplicaId(number), name, policies[name]) for number, name in enumerate(names)]


def left_over(asked: Sequence[Wish], start: list[Offer], answer: Placements) -> dict[str, Offer]:
    """The offers after every choice was taken from them, counted once more by hand."""
    rest = {offer.node: offer for offer in copy.deepcopy(start)}
    for wish in asked:
        if wish.replica in answer.chosen:
            rest[answer.chosen[wish.replica]].take(wish.deployment, wish.policy.resources)
    return rest


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_every_wish_is_answered_once(asked: list[Wish], start: list[Offer]) -> None:
    answer = place(asked, copy.deepcopy(start))
    assert sorted([*answer.chosen, *answer.refused]) == sorted(wish.replica for wish in asked)


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_no_node_is_given_more_than_it_has(asked: list[Wish], start: list[Offer]) -> None:
    for offer in left_over(asked, start, place(asked, copy.deepcopy(start))).values():
        before = next(it for it in start if it.node == offer.node)
        for now, then in (
            (offer.cpu_millicores, before.cpu_millicores),
            (offer.memory_mib, before.memory_mib),
            (offer.gpus, before.gpus),
            (offer.measured_mib or 0, before.measured_mib or 0),
        ):
            assert now >= 0 or now == then


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_no_blocked_or_unfit_node_is_chosen(asked: list[Wish], start: list[Offer]) -> None:
    by_name = {offer.node: offer for offer in start}
    answer = place(asked, copy.deepcopy(start))
    for wish in asked:
        if wish.replica in answer.chosen:
            offer = by_name[answer.chosen[wish.replica]]
            assert not offer.blocked
            assert all(offer.labels.get(key) == value for key, value in wish.policy.constraints)
            assert offer.capabilities >= set(wish.policy.capabilities)


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_equal_input_gives_equal_output(asked: list[Wish], start: list[Offer]) -> None:
    first, second = place(asked, copy.deepcopy(start)), place(copy.deepcopy(asked), copy.deepcopy(start))
    assert (first.chosen, first.refused) == (second.chosen, second.refused)


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_refused_only_if_nothing_fits(asked: list[Wish], start: list[Offer]) -> None:
    answer = place(asked, copy.deepcopy(start))
    rest = left_over(asked, start, answer).values()
    for wish in asked:
        if wish.replica in answer.refused:
            assert all(refusals(wish.policy, offer) for offer in rest)


@settings(max_examples=80, deadline=None)
@given(wishes(), offers())
def test_planning_again_changes_nothing(asked: list[Wish], start: list[Offer]) -> None:
    answer = place(asked, copy.deepcopy(start))
    rest = list(left_over(asked, start, answer).values())
    again = place([wish for wish in asked if wish.replica in answer.refused], rest)
    assert again.chosen == {}


@settings(max_examples=80, deadline=None)
@given(POLICIES, offers())
def test_the_short_judgement_and_the_long_one_agree(policy: Policy, seen: list[Offer]) -> None:
    for offer in seen:
        assert fits(policy, offer) == (not refusals(policy, offer))


@settings(max_examples=60, deadline=None)
@given(wishes(), offers())
def test_higher_priority_is_never_refused_for_lower(asked: list[Wish], start: list[Offer]) -> None:
    """Without the lower priorities the higher ones get exactly the same nodes."""
    answer = place(asked, copy.deepcopy(start))
    for floor in sorted({wish.policy.priority for wish in asked}):
        upper = [wish for wish in asked if wish.policy.priority >= floor]
        alone = place(upper, copy.deepcopy(start))
        assert alone.chosen == {w.replica: answer.chosen[w.replica] for w in upper if w.replica in answer.chosen}


# ------------------------------------------------------------------ choices, by example


def node(name: str, memory: int = 1000, **more: object) -> Offer:
    return Offer(NodeName(name), 8000, memory, 0, 8000, 1000, **more)  # type: ignore[arg-type]


def chosen(count: int, policy: Policy, *nodes: Offer) -> list[str]:
    asked = [Wish(ReplicaId(number), DeploymentName("a"), policy) for number in range(count)]
    answer = place(asked, nodes)
    return [answer.chosen[wish.replica] for wish in asked if wish.replica in answer.chosen]


def test_spread_puts_replicas_on_different_nodes_and_pack_on_one() -> None:
    small = Resources(100, 100)
    assert sorted(chosen(3, Policy(small), node("n1"), node("n2"), node("n3"))) == ["n1", "n2", "n3"]
    assert chosen(3, Policy(small, strategy="pack"), node("n1"), node("n2"), node("n3")) == ["n1", "n1", "n1"]


def test_pack_fills_the_fullest_node_that_still_fits() -> None:
    assert chosen(1, Policy(Resources(100, 100), strategy="pack"), node("n1"), node("n2", 300), node("n3", 50)) == [
        "n2"
    ]


def test_data_on_the_node_is_preferred_to_an_emptier_one() -> None:
    policy = Policy(Resources(100, 100), products=("BTC-USD",))
    assert chosen(1, policy, node("n1"), node("n2", 300, products=frozenset({"BTC-USD"}))) == ["n2"]


def test_recent_failures_push_replicas_elsewhere() -> None:
    assert chosen(1, Policy(Resources(100, 100)), node("n1", recent_failures=3), node("n2", 600)) == ["n2"]


def test_ties_go_to_the_lower_name() -> None:
    assert chosen(1, Policy(), node("n2"), node("n1"), node("n3")) == ["n1"]


def test_every_reason_is_named_not_just_the_first() -> None:
    policy = Policy(Resources(9000, 2000, 1), constraints=(("zone", "a"),), capabilities=("questdb",))
    seen = node("n1", labels={"zone": "b"}, blocked=(Refusal(Reason.DRAINING, "kernel"),))
    assert [refusal.reason for refusal in refusals(policy, seen)] == [
        Reason.DRAINING, Reason.LABEL_MISSING, Reason.CAPABILITY_MISSING, Reason.CPU_FULL, Reason.MEMORY_PROMISED,
        Reason.GPU_FULL,
    ]  # fmt: skip
    assert "needs zone=a, has zone=b" in str(refusals(policy, seen)[1])


def test_measured_memory_refuses_what_the_promises_would_allow() -> None:
    [refusal] = refusals(Policy(Resources(100, 300)), node("n1", measured_mib=200))
    assert str(refusal) == "not enough memory free as measured: needs 300 MiB, 200 MiB free"
