"""One history: a farm of simulated parts, a plan of work and faults, and then peace, in which everything must end.

The same seed gives the same history, whatever else the machine does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from controller.core.commands import (
    AddNode,
    AddProducts,
    CancelTask,
    Command,
    Cordon,
    Deploy,
    ForgetNode,
    NewProduct,
    NewTask,
    Remove,
    RemoveProducts,
    Rollback,
    Scale,
    StartDrain,
    Uncordon,
)
from controller.core.model import OPERATOR, DeploymentName, Limits, NodeName, ProductName, TaskOptions
from controller.core.policy import Policy, Resources
from tests.simulation.agents import AgentSpec
from tests.simulation.checkers import Checkers
from tests.simulation.clients import Clients
from tests.simulation.controllers import Controller
from tests.simulation.database import Database
from tests.simulation.laws import Broken
from tests.simulation.machines import Machine
from tests.simulation.network import Network
from tests.simulation.plans import Happening, Plan
from tests.simulation.world import World

PEACE_S = 240.0
"""Every task must have ended this long after the last fault: simulated seconds. It covers the longest seat backoff
(60 s), a lost node (T2 = 8 s), backoffs of retries (to 4 s) and the work itself."""
REUNION_S = 20.0
"""When every node has said hello again after the last fault, and silent ones were found lost: T2, a connection that was
waited for in vain (10 s), and the longest wait between two (5 s), of which T2 runs beside the rest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a history went. problem: the law that broke, None if none did."""

    plan: Plan
    problem: Exception | None
    at_s: float
    ended_s: float
    tasks: int
    events: int


class History:
    """A farm and what happens to it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        world = self.world = World(plan.seed)
        self.database = Database(world)
        self.network = Network(world)
        self.machines: dict[str, Machine] = {}
        self.checks = Checkers(world, self.database.tables, self.machines)
        self.database.applied = self.checks.committed
        limits = Limits(
            input_memory_bytes=plan.input_memory_bytes,
            seat_backoff_s=1.0,
            assign_bytes_max=2_000,
            prefetch_max=3,
        )
        self.controllers = [Controller(world, f"controller {n}", self.database, limits, self.checks) for n in (1, 2)]
        self.clients = Clients(world, self.controllers, self.checks)
        self._is_peace = False
        self._digests = 0
        self._has_feeds = any(it.what == "do_feed" for it in plan.happenings)

    def run(self) -> Verdict:
        """From the first boot to the last law."""
        world = self.world
        problem: Exception | None = None
        try:
            self._begin()
            for happening in self.plan.happenings:
                world.at(happening.at, self._happening, happening)
            world.run(self.plan.length_s)
            self._make_peace()
            world.run(self.plan.length_s + PEACE_S, self._is_over)
            if self.clients.asking or not self.checks.is_quiet():
                raise Broken(f"every task ends within {PEACE_S:.0f} s", self.checks.why_not_quiet())
            self.checks.at_the_end()
        except Broken as broken:
            problem = broken
        except Exception as mistake:  # what the core raises is a finding, not our end
            problem = mistake
        tables = self.database.tables
        tasks = len(tables.finished) + len(tables.tasks)
        return Verdict(self.plan, problem, world.now, world.now - self.plan.length_s, tasks, world.events)

    def _begin(self) -> None:
        for number, controller in enumerate(self.controllers):
            self.world.at(0.01 * number, controller.boot)
        for number, memory_mib in enumerate(self.plan.machines):
            self._add(f"n{number + 1}", memory_mib)

    def _add(self, name: str, memory_mib: int) -> None:
        machine = Machine(self.world, name, memory_mib, self.network, self.controllers, self.checks)
        self.machines[name] = machine
        if self._has_feeds:
            machine.feed.furnish()
        self._operate(AddNode(NodeName(name), actor=OPERATOR), is_repeated=True)
        self.world.at(0.05, machine.boot)

    def _happening(self, happening: Happening) -> None:
        self.happen(happening)

    def happen(self, happening: Happening) -> None:
        getattr(self, happening.what)(*happening.arguments)

    def _is_over(self) -> bool:
        world = self.world
        if world.events % 16 or world.now < self.plan.length_s + REUNION_S + 0.5:
            return False
        return not self.clients.asking and self.checks.is_quiet()

    # -------------------------------------------------------------- peace

    def _make_peace(self) -> None:
        """Faults stop: what is dead comes back, what is shut is opened, every agent gets a version that works."""
        self._is_peace = True
        self.network.heal()
        self.database.heal()
        self._revive()
        for name in list(self.machines):
            self._operate(AddNode(NodeName(name), actor=OPERATOR), is_repeated=True)
        self.world.at(REUNION_S, self._open)

    def _open(self) -> None:
        """Every node is back by now, so every lease must be in somebody's hands. Then make room, and deploy."""
        self.checks.every_lease_is_in_hand(before=self.plan.length_s)
        self.do_add_machine(4096)  # room for takeovers beside whatever the small ones hold
        for name in self.machines:
            self._operate(Uncordon(NodeName(name), actor=OPERATOR), is_repeated=True)
        for number in range(self.plan.deployments):
            self.do_deploy(number, "good", 4, 4, False, 64)

    def _revive(self) -> None:
        for controller in self.controllers:
            if not controller.is_alive:
                controller.boot()
            elif controller.is_stopped:
                controller.go_on()
        for machine in self.machines.values():
            for process in machine.processes.values():
                process.go_on()
            machine.boot()
            machine.disk.is_full = False
            if machine.daemon.is_stopped:
                machine.daemon.go_on()
            machine.start_daemon()

    # -------------------------------------------------------------- work

    def _operate(self, command: Command, *, is_repeated: bool) -> None:
        self.clients.request(command, lambda answer: None, is_repeated=is_repeated)

    def _deployment(self, number: int) -> DeploymentName:
        return DeploymentName(f"agent-{number % self.plan.deployments}")

    def _machine(self, number: int) -> Machine:
        return self.machines[sorted(self.machines)[number % len(self.machines)]]

    def do_submit(
        self, number: int, count: int, priority: int | None, steps: tuple[Any, ...],
        options: tuple[tuple[str, Any], ...], is_keyed: bool,
    ) -> None:  # fmt: skip
        data = json.dumps({"steps": steps}).encode()
        tasks = tuple(
            NewTask(
                self._deployment(number), data, priority,
                TaskOptions(
                    idempotency_key=self.clients.new_key() if is_keyed else None,
                    products=("P0",) if self._has_feeds and number % 4 == 0 else (), **dict(options),
                ),
            )
            for _ in range(count)
        )  # fmt: skip
        self.clients.submit(tasks, is_repeated=is_keyed)

    def do_cancel(self, number: int) -> None:
        known = self.clients.known
        if known:
            self._operate(
                CancelTask(known[-1 - number % min(len(known), 8)], actor=OPERATOR), is_repeated=number % 2 == 0
            )

    def do_deploy(
        self, number: int, kind: str, replicas: int, concurrency: int, is_exclusive: bool, memory_mib: int
    ) -> None:
        self._digests += 1
        run_timeout_s = 25.0 if is_exclusive else 6.0
        spec = AgentSpec(kind, concurrency, is_exclusive, run_timeout_s=run_timeout_s)
        policy = Policy(
            resources=Resources(100, memory_mib), concurrency=concurrency, backoff_s=0.3, backoff_max_s=4.0,
            exclusive=is_exclusive, run_timeout_s=run_timeout_s, healthy_deadline_s=6.0,
        )  # fmt: skip
        name = self._deployment(number)
        self._operate(
            Deploy(name, f"sha256:{self._digests}", spec.text(), policy, replicas=replicas, actor=OPERATOR),
            is_repeated=self._is_peace,
        )

    def do_scale(self, number: int, replicas: int) -> None:
        self._operate(Scale(self._deployment(number), replicas, actor=OPERATOR), is_repeated=False)

    def do_rollback(self, number: int) -> None:
        self._operate(Rollback(self._deployment(number), actor=OPERATOR), is_repeated=False)

    def do_remove(self, number: int) -> None:
        self._operate(Remove(self._deployment(number), actor=OPERATOR), is_repeated=False)

    def do_feed(self, name: str, copies: int, source: str | None) -> None:
        self._operate(AddProducts((NewProduct(ProductName(name), source, copies),), actor=OPERATOR), is_repeated=False)

    def do_unfeed(self, name: str) -> None:
        self._operate(RemoveProducts((ProductName(name),), actor=OPERATOR), is_repeated=False)

    def do_cut_feeding(self, number: int, for_s: float) -> None:
        """One that feeds something, if any does, is away for long."""
        feeding = [name for name in sorted(self.machines) if self.machines[name].feed.told]
        if feeding:
            self.do_cut_power(sorted(self.machines).index(feeding[number % len(feeding)]), for_s)

    def do_cordon(self, number: int) -> None:
        self._operate(Cordon(NodeName(self._machine(number).name), actor=OPERATOR), is_repeated=False)

    def do_uncordon(self, number: int) -> None:
        self._operate(Uncordon(NodeName(self._machine(number).name), actor=OPERATOR), is_repeated=False)

    def do_drain(self, number: int, deadline_s: float) -> None:
        self._operate(StartDrain(NodeName(self._machine(number).name), deadline_s, actor=OPERATOR), is_repeated=False)

    def do_forget(self, number: int) -> None:
        self._operate(ForgetNode(NodeName(self._machine(number).name), actor=OPERATOR), is_repeated=False)

    def do_add_machine(self, memory_mib: int) -> None:
        self._add(f"n{len(self.machines) + 1}", memory_mib)

    # -------------------------------------------------------------- faults

    def do_reset(self, number: int) -> None:
        self.network.reset(self._machine(number).name)

    def do_half_open(self, number: int, way: str) -> None:
        self.network.reset(self._machine(number).name, unnoticed_by=way)

    def do_partition(self, number: int, ways: tuple[str, ...], for_s: float) -> None:
        self.network.partition(self._machine(number).name, ways, for_s)

    def do_slow(self, number: int, for_s: float) -> None:
        self.network.slow(self._machine(number).name, for_s)

    def do_kill_daemon(self, number: int, for_s: float) -> None:
        machine = self._machine(number)
        machine.kill_daemon()
        self.world.at(for_s, machine.start_daemon)

    def do_stop_daemon(self, number: int, for_s: float) -> None:
        daemon = self._machine(number).daemon
        if daemon.is_alive and not daemon.is_stopped:
            daemon.stop()
            self.world.at(for_s, self._go_on, daemon, daemon.life)

    def do_cut_power(self, number: int, for_s: float) -> None:
        machine = self._machine(number)
        machine.cut_power()
        self.world.at(for_s, machine.boot)

    def do_kill_replica(self, number: int) -> None:
        machine = self._machine(number)
        if machine.processes:
            machine.processes[sorted(machine.processes)[number % len(machine.processes)]].die()

    def do_stop_replica(self, number: int, for_s: float) -> None:
        """It stands still, or what it runs holds its interpreter: it hears nothing and says nothing."""
        able = [it for _, it in sorted(self._machine(number).processes.items())]
        if chosen := [it for it in able if it.working_on] or able:
            process = chosen[number % len(chosen)]
            process.stop()
            self.world.at(for_s, self._go_on, process, process.life)

    def do_restart_beside_silent(self, number: int, for_s: float) -> None:
        """The daemon is started again while a replica says nothing; soon, or not before that one goes on."""
        self.do_stop_replica(number, for_s)
        self.do_kill_daemon(number, for_s if number % 2 else min(for_s, 1.0))

    def do_kill_zygote(self, number: int, for_s: float) -> None:
        machine = self._machine(number)
        machine.zygote_back_at = self.world.now + min(for_s, 3.0)
        for process in list(machine.processes.values()):
            process.zygote_gone()

    def do_leave_alone(self, number: int, for_s: float) -> None:
        """A replica stands still, its zygote and its daemon are dead, and all that past the lease."""
        self.do_stop_replica(number, for_s)
        self.do_kill_zygote(number, 0.0)
        self.do_kill_daemon(number, for_s)

    def do_fill_disk(self, number: int, for_s: float) -> None:
        machine = self._machine(number)
        machine.disk.is_full = True
        self.world.at(for_s, self._empty_disk, machine)

    def _empty_disk(self, machine: Machine) -> None:
        machine.disk.is_full = False

    def do_kill_controller(self, number: int, for_s: float) -> None:
        """The one that leads, mostly."""
        leading = [it for it in self.controllers if it.is_alive and it.state is not None] or self.controllers
        controller = leading[0] if number % 4 else self.controllers[number % 2]
        if controller.is_alive:
            controller.kill()
            self.world.at(for_s, self._boot, controller, controller.life)

    def _boot(self, controller: Controller, life: int) -> None:
        if controller.life == life and not controller.is_alive:
            controller.boot()

    def do_stop_controller(self, number: int, for_s: float) -> None:
        controller = self.controllers[number % 2]
        if controller.is_alive and not controller.is_stopped:
            controller.stop()
            self.world.at(for_s, self._go_on, controller, controller.life)

    def _go_on(self, process: Any, life: int) -> None:
        if process.life == life and process.is_stopped:
            process.go_on()

    def do_drop_lock(self) -> None:
        self.database.drop_lock()

    def do_database_away(self, for_s: float) -> None:
        self.database.away(for_s)

    def do_database_slow(self, for_s: float) -> None:
        self.database.slow(for_s)

    def do_spoil_commit(self, fault: str) -> None:
        self.database.spoil_next(fault)

    def do_jump_clock(self, number: int, by_s: float) -> None:
        self.controllers[number % 2].wall_offset_s += by_s
        self.checks.clock_jumped = True
