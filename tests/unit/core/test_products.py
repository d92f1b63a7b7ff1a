"""Market products: laws of their assignment, and stories of a farm that feeds them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.errors import CannotPlace, FarmError, InvalidRequest, NotFound
from controller.core.agents.placement import Reason, Refusal
from controller.core.commands import AddNode, AddProducts, Cordon, NewProduct, RemoveProducts, StartDrain, Uncordon
from controller.core.lives import NodeState
from controller.core.market.products import Assignment, Feeder, Wish, assign, refusals
from controller.core.model import COPIES_MAX, OPERATOR, NodeName, ProductName
from tests.unit.core.farm import Farm

N1, N2, N3 = NodeName("n1"), NodeName("n2"), NodeName("n3")
BTC, ETH = ProductName("BTC-USD"), ProductName("ETH-USD")

# ------------------------------------------------------------------ laws

names = st.sampled_from([f"n{number}" for number in range(6)]).map(NodeName)
products = st.sampled_from([f"P{number}" for number in range(8)]).map(ProductName)
sources = st.sampled_from(["a", "b"])


@st.composite
def a_feeder(draw: st.DrawFn, name: NodeName) -> Feeder:
    is_gone, is_leaving = draw(st.booleans()), draw(st.booleans())
    is_out = is_gone or is_leaving or draw(st.booleans())
    return Feeder(
        name, draw(st.booleans()), draw(sources), draw(st.frozensets(products, max_size=2)),
        frozenset() if is_gone else draw(st.frozensets(products)), (Refusal(Reason.CORDONED),) if is_out else (),
        is_gone, is_leaving, is_leaving and draw(st.booleans()),
    )  # fmt: skip


@st.composite
def farms(draw: st.DrawFn) -> tuple[list[Wish], list[Feeder]]:
    feeders = [draw(a_feeder(name)) for name in sorted(draw(st.sets(names, min_size=1)))]
    wanted = [
        Wish(name, draw(st.just("") | sources), draw(st.integers(1, 3)), draw(st.frozensets(names, max_size=4)))
        for name in sorted(draw(st.sets(products)))
    ]
    return wanted, [_of_now(feeder, wanted) for feeder in feeders]


def _of_now(feeder: Feeder, wanted: list[Wish]) -> Feeder:
    """It says nothing of what it does not feed: what it said of an earlier time does not count before it has it."""
    feeds = feeder.own | {it.product for it in wanted if feeder.node in it.holders}
    return dataclasses.replace(feeder, good=feeder.good & feeds)


def applied(wanted: list[Wish], answer: dict[ProductName, Assignment]) -> list[Wish]:
    return [dataclasses.replace(it, holders=answer[it.product].holders) for it in wanted]


@given(farms())
def test_each_copy_is_on_a_node_of_its_own_that_may_have_it(farm: tuple[list[Wish], list[Feeder]]) -> None:
    wanted, feeders = farm
    by_name = {it.node: it for it in feeders}
    for it in wanted:
        answer = assign(wanted, feeders)[it.product]
        assert len(set(answer.keepers)) == len(answer.keepers) <= it.copies
        for name in answer.holders:
            feeder = by_name[name]
            assert feeder.takes_products
            assert not feeder.is_gone
            assert not feeder.is_forced
            assert it.product not in feeder.own, "its own settings are a copy already"
            assert it.source in ("", feeder.source)
            if name not in it.holders:
                assert not feeder.blocked, "nothing new on a node that takes nothing new"
        assert len(answer.holders) <= 2 * it.copies


@given(farms())
def test_copies_are_met_where_nodes_allow(farm: tuple[list[Wish], list[Feeder]]) -> None:
    wanted, feeders = farm
    for it in wanted:
        answer = assign(wanted, feeders)[it.product]
        assert len(answer.keepers) + answer.missing == it.copies
        free = [feeder for feeder in feeders if not refusals(it, feeder, answer.holders)]
        assert not (answer.missing and free), "a copy is missing though a node could take it"


@given(farms())
def test_assigning_again_changes_nothing(farm: tuple[list[Wish], list[Feeder]]) -> None:
    wanted, feeders = farm
    first = assign(wanted, feeders)
    again = assign(applied(wanted, first), feeders)
    assert {name: (it.holders, it.missing) for name, it in first.items()} == {
        name: (it.holders, it.missing) for name, it in again.items()
    }


@given(farms(), st.randoms())
def test_equal_farms_get_equal_answers(farm: tuple[list[Wish], list[Feeder]], chance: Any) -> None:
    wanted, feeders = farm
    first = assign(wanted, feeders)
    chance.shuffle(wanted)
    chance.shuffle(feeders)
    assert assign(wanted, feeders) == first


@given(farms())
def test_copy_that_holds_is_never_moved_for_balance(farm: tuple[list[Wish], list[Feeder]]) -> None:
    wanted, feeders = farm
    answer = assign(wanted, feeders)
    by_name = {it.node: it for it in feeders}
    for it in wanted:
        held = [by_name[name] for name in it.holders if name in by_name]
        fit = [f for f in held if not (f.is_gone or f.is_forced or f.is_leaving) and f.takes_products
               and it.source in ("", f.source) and it.product not in f.own]  # fmt: skip
        own = [f for f in feeders if it.product in f.own and not (f.is_gone or f.is_leaving)
               and it.source in ("", f.source)]  # fmt: skip
        if len(fit) + len(own) <= it.copies:
            assert {f.node for f in fit} <= answer[it.product].holders


@given(farms())
def test_what_leaves_feeds_on_until_its_copies_are_good(farm: tuple[list[Wish], list[Feeder]]) -> None:
    wanted, feeders = farm
    answer = assign(wanted, feeders)
    by_name = {it.node: it for it in feeders}
    for it in wanted:
        leaving = [name for name in it.holders if name in by_name and by_name[name].is_leaving
                   and it.product in by_name[name].good and not by_name[name].is_forced
                   and not by_name[name].is_gone and by_name[name].takes_products
                   and it.source in ("", by_name[name].source) and it.product not in by_name[name].own]  # fmt: skip
        good = [name for name in answer[it.product].keepers if it.product in by_name[name].good]
        kept = sum(it.product in by_name[name].good for name in answer[it.product].extras)
        assert len(good) + kept >= min(it.copies, len(good) + len(leaving)), "a good copy was given up too early"
        assert len(answer[it.product].extras) <= it.copies - len(good)


@given(st.integers(1, 30), st.integers(1, 6))
def test_new_products_are_spread_evenly(count: int, nodes: int) -> None:
    wanted = [Wish(ProductName(f"P{number:02}")) for number in range(count)]
    answer = assign(wanted, [Feeder(NodeName(f"n{number}")) for number in range(nodes)])
    load = [sum(f"n{number}" in it.holders for it in answer.values()) for number in range(nodes)]
    assert max(load) - min(load) <= 1
    assert sum(load) == count


# ------------------------------------------------------------------ stories


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_products_are_shared_out_and_nodes_are_told(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    btc, eth = farm.feed("BTC-USD", "ETH-USD")
    assert (btc.nodes, eth.nodes) == ({"n1"}, {"n2"})
    assert (farm.desired("n1").products, farm.desired("n2").products) == (("BTC-USD",), ("ETH-USD",))
    assert [event.node for event in farm.told("product.assigned")] == ["n1", "n2"]


def test_node_without_a_feed_is_told_nothing_of_products(farm: Farm) -> None:
    farm.node("n1")
    farm.feeding("n2")
    farm.feed("BTC-USD", copies=2)
    assert farm.desired("n1").products is None
    assert farm.state.products[BTC].nodes == {"n2"}
    assert [event.data["missing"] for event in farm.told("product.unplaced")] == [1]
    farm.wait(5)
    assert len(farm.told("product.unplaced")) == 1, "said once"
    farm.feeding("n3")
    assert farm.state.products[BTC].nodes == {"n2", "n3"}


def test_what_a_node_feeds_by_its_own_settings_is_a_copy(farm: Farm) -> None:
    farm.feeding("n1")
    farm.turn(AddNode(N2, actor=OPERATOR))
    farm.hello("n2", own=("BTC-USD",))
    [btc] = farm.feed("BTC-USD")
    assert btc.nodes == set()
    farm.feed("BTC-USD", copies=2)
    assert btc.nodes == {"n1"}


def test_products_of_a_source_go_to_its_feeds(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feeding("n3", source="binance")
    assert farm.feed("BTCUSDT", source="binance")[0].nodes == {"n3"}
    with pytest.raises(CannotPlace, match="source 'kraken'"):
        farm.feed("BTC-USD", source="kraken")
    assert BTC not in farm.state.products


def test_products_of_a_lost_node_are_fed_elsewhere_in_the_same_turn(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.silent.add("n1")
    farm.wait(7.5)
    assert farm.state.products[BTC].nodes == {"n1"}, "silent is not lost: it may feed on"
    farm.wait(1)
    assert farm.state.nodes[N1].state is NodeState.LOST
    assert farm.state.products[BTC].nodes == {"n2"}
    assert [event.data["reason"] for event in farm.told("product.moved")] == ["node_lost"]
    come_back(farm)
    assert farm.desired("n1").products == (), "what was moved stays where it is"
    farm.feeds("n1")
    farm.feeds("n2")
    assert farm.state.products[BTC].nodes == {"n2"}


def come_back(farm: Farm) -> None:
    farm.silent.clear()
    farm.hello("n1", source="a")


def test_lost_product_that_nobody_can_take_goes_back_with_its_node(farm: Farm) -> None:
    farm.feeding("n1")
    farm.feed("BTC-USD")
    farm.silent.add("n1")
    farm.wait(9)
    assert farm.state.products[BTC].nodes == set()
    assert farm.told("product.unplaced")
    farm.silent.clear()
    farm.hello("n1", source="a")
    assert farm.desired("n1").products == ("BTC-USD",)


def test_drained_node_feeds_until_its_successor_is_good(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.feeds("n1")
    farm.ask(StartDrain(N1, 60.0, actor=OPERATOR))
    drain = farm.state.nodes[N1].drain
    assert drain is not None
    assert farm.state.products[BTC].nodes == {"n1", "n2"}
    farm.feeds("n2", BTC_USD="starting")
    assert (farm.desired("n1").products, drain.is_complete) == (("BTC-USD",), False)
    farm.feeds("n2")
    assert (farm.desired("n1").products, farm.desired("n2").products) == ((), ("BTC-USD",))
    assert not drain.is_complete, "its feed has not said that it stopped"
    farm.feeds("n1")
    assert (drain.is_complete, drain.is_forced) == (True, False)


def test_drain_gives_a_product_up_at_its_deadline_when_nobody_takes_it(farm: Farm) -> None:
    farm.feeding("n1")
    farm.feed("BTC-USD")
    farm.feeds("n1")
    farm.ask(StartDrain(N1, 10.0, actor=OPERATOR))
    drain = farm.state.nodes[N1].drain
    assert drain is not None
    assert [event.severity for event in farm.told("product.unplaced")] == ["warning"]
    farm.wait(9.5)
    assert farm.desired("n1").products == ("BTC-USD",)
    farm.wait(1)
    assert farm.desired("n1").products == ()
    assert (drain.is_forced, drain.is_complete) == (True, True)
    farm.ask(Uncordon(N1, actor=OPERATOR))
    assert farm.desired("n1").products == ("BTC-USD",)


def test_drain_does_not_wait_for_a_silent_feed_beyond_its_deadline(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.feeds("n1")
    farm.ask(StartDrain(N1, 10.0, actor=OPERATOR))
    farm.feeds("n2")
    drain = farm.state.nodes[N1].drain
    assert drain is not None
    assert not drain.is_complete
    farm.wait(10.5)
    assert (drain.is_complete, drain.is_forced) == (True, False)


def test_undrain_keeps_the_feed_that_is_good(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.feeds("n1")
    farm.ask(StartDrain(N1, 60.0, actor=OPERATOR))
    farm.ask(Uncordon(N1, actor=OPERATOR))
    assert farm.state.products[BTC].nodes == {"n1"}
    assert farm.desired("n2").products == ()


def test_cordoned_node_keeps_its_products_and_gets_no_new_ones(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.ask(Cordon(N1, actor=OPERATOR))
    farm.feed("ETH-USD", "SOL-USD")
    assert farm.state.nodes[N1].assigned == {"BTC-USD"}
    assert farm.state.nodes[N2].assigned == {"ETH-USD", "SOL-USD"}


def test_new_controller_moves_nothing(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("BTC-USD", "ETH-USD", "SOL-USD", copies=2)
    before = {name: set(it.nodes) for name, it in farm.state.products.items()}
    farm.restart()
    for name in ("n3", "n1", "n2"):
        farm.hello(name, source="a")
    farm.wait(2)
    assert {name: it.nodes for name, it in farm.state.products.items()} == before
    assert farm.desired("n1").products == tuple(sorted(farm.state.nodes[N1].assigned))


def test_new_controller_waits_for_the_word_of_feeds_before_a_drained_node_stops(farm: Farm) -> None:
    farm.feeding("n1", "n2")
    farm.feed("BTC-USD")
    farm.feeds("n1")
    farm.ask(StartDrain(N1, 60.0, actor=OPERATOR))
    farm.restart()
    for name in ("n1", "n2"):
        farm.hello(name, source="a")
    assert farm.desired("n1").products == ("BTC-USD",)
    farm.feeds("n2")
    assert farm.desired("n1").products == ()


def test_fewer_copies_give_up_the_worse_ones(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("BTC-USD", copies=3)
    for name in ("n1", "n3"):
        farm.feeds(name, BTC_USD="doubtful")
    farm.feeds("n2")
    farm.feed("BTC-USD", copies=1)
    assert farm.state.products[BTC].nodes == {"n2"}
    assert {event.data["reason"] for event in farm.told("product.released")} == {"not_needed"}


def test_removed_products_are_fed_no_more(farm: Farm) -> None:
    farm.feeding("n1")
    farm.feed("BTC-USD", "ETH-USD")
    farm.ask(RemoveProducts((BTC, BTC), actor=OPERATOR))
    assert farm.desired("n1").products == ("ETH-USD",)
    with pytest.raises(NotFound) as refused:
        farm.ask(RemoveProducts((ETH, ProductName("BTC-EUR")), actor=OPERATOR))
    assert refused.value.data["known"] == ["ETH-USD"]
    assert ETH in farm.state.products, "all or none"


def test_adding_again_changes_nothing(farm: Farm) -> None:
    farm.feeding("n1")
    farm.feed("BTC-USD")
    assert farm.ask(AddProducts((NewProduct(BTC, "", 1), NewProduct(BTC)), actor=OPERATOR)) == []
    assert len(farm.told("product.added")) == 1


@pytest.mark.parametrize("name", ["", "BTC USD", "-BTC", "B" * 65, "BTC\0", "BTC?", "Ünit"])
def test_what_cannot_be_a_product_is_refused(farm: Farm, name: str) -> None:
    farm.feeding("n1")
    with pytest.raises(InvalidRequest, match="cannot be the name of a product"):
        farm.feed("BTC-USD", name)
    assert not farm.state.products


@pytest.mark.parametrize("copies", [0, -1, COPIES_MAX + 1])
def test_copies_have_bounds(farm: Farm, copies: int) -> None:
    farm.feeding("n1")
    with pytest.raises(InvalidRequest, match="copies"):
        farm.feed("BTC-USD", copies=copies)


def test_farm_without_feeds_says_what_to_do(farm: Farm) -> None:
    farm.node("n1")
    with pytest.raises(CannotPlace) as refused:
        farm.feed("BTC-USD")
    assert "docs/market-data.md" in refused.value.remedy
    assert isinstance(refused.value, FarmError)


# ------------------------------------------------------------------ data locality


def test_replicas_follow_their_data_when_its_node_is_lost(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("AAA", "BTC-USD")
    farm.deploy(replicas=1, products=("BTC-USD",))
    farm.run_all()
    assert [it.node for it in farm.replicas()] == ["n2"]
    farm.silent.add("n2")
    farm.wait(9)
    assert farm.state.products[BTC].nodes == {"n3"}, "the least loaded one left"
    assert [it.node for it in farm.replicas()] == ["n3"]


def test_replicas_follow_their_data_when_its_node_is_drained(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("BTC-USD")
    farm.deploy(replicas=1, products=("BTC-USD",))
    farm.run_all()
    farm.ask(StartDrain(N1, 60.0, actor=OPERATOR))
    [heir] = [it for it in farm.replicas() if it.node != "n1"]
    assert farm.state.products[BTC].nodes == {"n1", heir.node}


def test_task_goes_to_a_node_that_holds_its_products(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("AAA", "BTC-USD")
    farm.deploy(replicas=3)
    farm.run_all()
    assert [task.node for task in farm.submit(1, products=("BTC-USD",))] == ["n2"]
    assert {task.node for task in farm.submit(2, products=("BTC-USD",))} == {"n1", "n3"}, "any free hand will do"
    assert len({task.replica for task in farm.state.tasks.values()}) == 3


def test_tasks_with_and_without_products_fill_every_hand(farm: Farm) -> None:
    farm.feeding("n1", "n2", "n3")
    farm.feed("AAA", "BTC-USD", "CCC")
    farm.deploy(replicas=3, concurrency=4)
    farm.run_all()
    near = farm.submit(3, products=("BTC-USD",))
    farm.submit(4)
    near += farm.submit(1, products=("BTC-USD",))
    assert {task.node for task in near} == {"n2"}
    farm.submit(6, products=("CCC",))
    assert [len(it.tokens) for it in farm.replicas()].count(4) >= 2
    assert sum(len(it.tokens) for it in farm.replicas()) == 12
