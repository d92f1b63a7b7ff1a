"""What will happen in a history, drawn from its seed before it begins: as a list, so that it can be made shorter.

An event names its targets by numbers that are taken modulo what there is, so any subset of a plan is a plan.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.simulation.agents import Step
from tests.simulation.feeds import feed_happenings
from tests.simulation.parking import is_jumpy, jumpy_work


class Happening(NamedTuple):
    """One event of a plan. what: the name of a method of History."""

    at: float
    what: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.at:8.3f} s  {self.what.removeprefix('do_')}{self.arguments}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A history to be."""

    seed: int
    machines: tuple[int, ...]  # memory of each, MiB
    deployments: int
    length_s: float
    input_memory_bytes: int
    happenings: tuple[Happening, ...] = field(repr=False)


FAULTS: Final[dict[str, float]] = {
    "do_reset": 3.0,
    "do_half_open": 1.5,
    "do_partition": 3.0,
    "do_slow": 1.0,
    "do_kill_daemon": 3.0,
    "do_stop_daemon": 1.5,
    "do_cut_power": 2.0,
    "do_kill_replica": 3.0,
    "do_stop_replica": 2.0,
    "do_restart_beside_silent": 1.0,
    "do_kill_zygote": 0.7,
    "do_fill_disk": 1.0,
    "do_kill_controller": 3.0,
    "do_stop_controller": 1.5,
    "do_drop_lock": 1.5,
    "do_database_away": 1.5,
    "do_database_slow": 0.7,
    "do_spoil_commit": 3.0,
    "do_jump_clock": 1.0,
}
WORK: Final[dict[str, float]] = {
    "do_submit": 12.0,
    "do_cancel": 3.0,
    "do_deploy": 2.0,
    "do_scale": 2.0,
    "do_rollback": 0.5,
    "do_remove": 0.4,
    "do_cordon": 1.0,
    "do_uncordon": 1.2,
    "do_drain": 1.2,
    "do_forget": 0.4,
    "do_add_machine": 0.3,
}
KINDS: Final = ("good", "good", "good", "slow", "import_failed", "environment_failed", "crash_loop", "never_ready")
DOES: Final = {"ok": 70.0, "fail": 14.0, "reject": 4.0, "crash": 8.0, "hang": 4.0}
ALONE_SHARE: Final = 0.08
SHORT_S: Final = (0.2, 1.0, 2.5)
LONG_S: Final = (5.0, 7.0, 9.0, 12.0, 20.0)


@dataclass(frozen=True, slots=True)
class Mood:
    """What a history is like."""

    work: dict[str, float]
    faults: dict[str, float]
    faults_a_second: float
    fault_lengths_s: tuple[float, ...] = (*SHORT_S, *LONG_S)
    machines_min: int = 1
    exclusive_share: float = 0.4
    steps_s: tuple[float, ...] = (0.002, 0.02, 0.2, 1.0, 1.0, 4.0, 9.0, 15.0)


def plan(seed: int) -> Plan:
    """The plan of a seed."""
    return _jumpy_plan(seed) if is_jumpy(seed) else _mixed_plan(seed)


def _jumpy_plan(seed: int) -> Plan:
    """Short work, some of which suddenly takes long; few faults, for a fault frees what waits too."""
    chance = random.Random(f"{seed}:jumpy plan")
    length_s = chance.choice((20.0, 30.0))
    deployments = chance.randint(1, 2)
    mood = Mood({}, FAULTS, chance.choice((0.0, 0.0, 0.1, 0.3)))
    wishes = [
        (0.3 + 0.1 * it, "do_deploy", (it, "good", chance.randint(2, 4), chance.choice((1, 1, 2)),
                                       chance.random() < mood.exclusive_share, 64))
        for it in range(deployments)
    ]  # fmt: skip
    wishes += jumpy_work(chance, deployments, length_s)
    moment = 2.0
    while mood.faults_a_second and (moment := moment + chance.expovariate(mood.faults_a_second)) < length_s:
        what = chance.choices(list(FAULTS), list(FAULTS.values()))[0]
        wishes.append((moment, what, _fault(chance, mood, what)))
    happenings = sorted(Happening(round(at, 3), what, arguments) for at, what, arguments in wishes)
    return Plan(seed, (2048,) * chance.randint(2, 4), deployments, length_s, 1 << 20, tuple(happenings))


def _mixed_plan(seed: int) -> Plan:
    """A bit of everything."""
    chance = random.Random(f"{seed}:plan")
    mood = _mood(chance)
    length_s = chance.choice((10.0, 20.0, 30.0))
    machines = tuple(chance.choice((512, 1024, 2048)) for _ in range(chance.randint(mood.machines_min, 4)))
    deployments = chance.randint(1, 3)
    happenings = [
        Happening(0.3 + 0.1 * number, "do_deploy", _deploy(chance, mood, number, "good"))
        for number in range(deployments)
    ]
    for weights, a_second, arguments in (
        (mood.work, 1.5, _work),
        (mood.faults, mood.faults_a_second, _fault),
    ):
        moment = 1.0
        while a_second and (moment := moment + chance.expovariate(a_second)) < length_s:
            what = chance.choices(list(weights), list(weights.values()))[0]
            happenings.append(Happening(round(moment, 3), what, arguments(chance, mood, what)))
    memory_bytes = chance.choice((40, 500, 1 << 20))
    happenings += [Happening(*it) for it in feed_happenings(seed, length_s)]
    happenings += _left_alone(seed, length_s)
    return Plan(seed, machines, deployments, length_s, memory_bytes, tuple(sorted(happenings)))


def _left_alone(seed: int, length_s: float) -> list[Happening]:
    """In a few histories, at the worst time, everybody who could end a silent replica is dead. It does not move the
    plan."""
    chance = random.Random(f"{seed}:alone")
    if chance.random() >= ALONE_SHARE:
        return []
    moments = [chance.uniform(2.0, length_s - 3.0) for _ in range(2)]
    return [
        Happening(round(at, 3), "do_leave_alone", (chance.randrange(1 << 16), round(chance.uniform(9.0, 14.0), 3)))
        for at in moments
    ]


def _mood(chance: random.Random) -> Mood:
    """Some histories are calm, each of the others has ills of its own; some are about leases of exclusive work."""
    if chance.random() < 0.15:
        return Mood(
            work={"do_submit": 4.0, "do_cancel": 0.3, "do_scale": 0.3, "do_drain": 0.2},
            faults={"do_partition": 3.0, "do_kill_daemon": 2.0, "do_stop_daemon": 2.0, "do_stop_replica": 2.0,
                    "do_restart_beside_silent": 2.0, "do_drop_lock": 1.0,
                    "do_kill_controller": 1.0, "do_stop_controller": 1.0, "do_slow": 1.0},
            faults_a_second=0.4, fault_lengths_s=LONG_S, machines_min=2, exclusive_share=0.9, steps_s=(1.0, 9.0, 15.0),
        )  # fmt: skip
    kinds = sorted(FAULTS)
    chance.shuffle(kinds)
    faults = {kind: FAULTS[kind] for kind in kinds[: chance.randint(3, len(kinds))]}
    return Mood(WORK, faults, chance.choice((0.0, 0.2, 0.4, 0.4, 0.8)))


def _work(chance: random.Random, mood: Mood, what: str) -> tuple[Any, ...]:
    number = chance.randrange(1 << 16)
    if what == "do_submit":
        options: dict[str, float] = {}
        if chance.random() < 0.2:
            options["max_attempts"] = chance.choice((1, 2, 5, 8))
        if chance.random() < 0.1:
            options["queue_timeout_s"] = chance.choice((0.5, 3.0))
        if chance.random() < 0.15:
            options["run_timeout_s"] = chance.choice((0.5, 3.0))
        steps = tuple(tuple(_step(chance, mood)) for _ in range(chance.randint(1, 4)))
        return (
            number, chance.choice((1, 1, 2, 5, 10)), chance.choice((None, None, -3, 0, 5)), steps,
            tuple(sorted(options.items())), chance.random() < 0.7,
        )  # fmt: skip
    if what == "do_deploy":
        return _deploy(chance, mood, number, chance.choice(KINDS))
    if what == "do_scale":
        return (number, chance.randint(0, 5))
    if what == "do_drain":
        return (number, chance.choice((0.0, 2.0, 6.0, 20.0)))
    if what == "do_add_machine":
        return (chance.choice((512, 1024)),)
    return (number,)


def _deploy(chance: random.Random, mood: Mood, number: int, kind: str) -> tuple[Any, ...]:
    """Which, kind, replicas, concurrency, whether exclusive, memory."""
    is_exclusive = chance.random() < mood.exclusive_share
    return number, kind, chance.randint(1, 4), chance.choice((1, 1, 2, 4)), is_exclusive, chance.choice((64, 128, 300))


def _step(chance: random.Random, mood: Mood) -> Step:
    does = chance.choices(list(DOES), list(DOES.values()))[0]
    return Step(does, chance.choice(mood.steps_s), chance.random() < 0.1)


def _fault(chance: random.Random, mood: Mood, what: str) -> tuple[Any, ...]:
    number = chance.randrange(1 << 16)
    for_s = round(chance.choice(mood.fault_lengths_s) * (0.8 + 0.4 * chance.random()), 3)
    if what == "do_half_open":
        return (number, chance.choice(("up", "down")))
    if what == "do_partition":
        return (number, chance.choice((("up",), ("down",), ("up", "down"))), for_s)
    if what in ("do_database_away", "do_database_slow"):
        return (min(for_s, 6.0),)
    if what == "do_spoil_commit":
        return (chance.choice(("refused", "answer_lost")),)
    if what == "do_jump_clock":
        return (number, chance.choice((-86_400.0, -5.0, 3.0, 3_600.0)))
    if what in ("do_reset", "do_kill_replica"):
        return (number,)
    if what == "do_drop_lock":
        return ()
    return (number, for_s)
