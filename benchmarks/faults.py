"""The faults of the chaos run: what each does to a scene, and how it is undone. Chance comes from the scene's seed.

A deed blocks until the harness has done its part (a service manager's restart after a second, a network that heals);
what the farm must do then is its own affair. Nothing here waits for it, and nothing here judges it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from benchmarks.scene import Scene

RESTART_AFTER_S: Final = 1.0
"""RestartSec of our units."""
PAST_LEASE_S: Final = (9.0, 11.0)
"""Longer than the 8 s after which other nodes get the work."""
BURST: Final = 40


@dataclass(frozen=True)
class Fault:
    """One kind. `words` say what is done; `missing` says why it cannot be done here, or nothing."""

    name: str
    words: str
    deed: Callable[[Scene], None]
    missing: Callable[[Scene], str] = lambda scene: ""
    times: int = 1
    """Per round."""
    needs_standby: bool = False


def pause(seconds: float) -> None:
    """A fault lasts."""
    time.sleep(seconds)


# ------------------------------------------------------------------ processes


def replica_killed(scene: Scene) -> None:
    _kill_one(scene.replica_processes(scene.node_in_use()), scene)


def zygote_killed(scene: Scene) -> None:
    _kill_one(scene.zygotes(scene.node_in_use()), scene)


def daemon_killed(scene: Scene) -> None:
    node = scene.node_in_use()
    scene.farm.kill(node)
    pause(RESTART_AFTER_S)
    scene.restart(node)


def node_killed(scene: Scene) -> None:
    node = scene.node_in_use()
    scene.farm.kill_node(node)
    pause(scene.chance.uniform(*PAST_LEASE_S))
    scene.restart(node)


def daemon_stopped(scene: Scene) -> None:
    with scene.stopped(scene.farm.processes[scene.node_in_use()].pid):
        pause(scene.chance.uniform(*PAST_LEASE_S))


def _kill_one(processes: list[psutil.Process], scene: Scene) -> None:
    victims = sorted(processes, key=lambda process: process.pid)
    assert victims, "the node has no such process"
    with contextlib.suppress(psutil.NoSuchProcess):
        scene.chance.choice(victims).kill()


# ------------------------------------------------------------------ controller


def controller_killed(scene: Scene) -> None:
    scene.farm.kill("controller")
    pause(RESTART_AFTER_S)
    scene.restart("controller")


def controller_killed_amid_submits(scene: Scene) -> None:
    """Somewhere between the arrival of a burst of submits and their answers, of which half come with the result."""
    scene.burst(BURST)
    pause(scene.chance.uniform(0.0, 0.2))
    controller_killed(scene)


def controller_stopped(scene: Scene) -> None:
    with scene.stopped(scene.farm.processes["controller"].pid):
        pause(scene.chance.uniform(5.0, 8.0))  # as long as work is held up by that alone


# ------------------------------------------------------------------ PostgreSQL


def postgres_killed(scene: Scene) -> None:
    os.kill(scene.postmaster(), signal.SIGKILL)


def postgres_immediate(scene: Scene) -> None:
    os.kill(scene.postmaster(), signal.SIGQUIT)


def postgres_restarted(scene: Scene) -> None:
    os.kill(scene.postmaster(), signal.SIGINT)  # pg_ctl stop -m fast


def postgres_stopped(scene: Scene) -> None:
    """As on a disk that hangs: nothing fails, nothing goes on."""
    with contextlib.ExitStack() as stack:
        postmaster = psutil.Process(scene.postmaster())
        for process in (postmaster, *postmaster.children(recursive=True)):
            stack.enter_context(scene.stopped(process.pid))
        pause(scene.chance.uniform(3.0, 6.0))


def session_ended(scene: Scene) -> None:
    scene.end_session(scene.chance.choice(scene.backends()))


def backend_killed(scene: Scene) -> None:
    """Which makes the postmaster end every session and recover."""
    os.kill(scene.chance.choice(scene.backends()), signal.SIGKILL)


# ------------------------------------------------------------------ network


def _held(scene: Scene, *, up: bool, down: bool) -> None:
    node = scene.node_in_use()
    scene.hold(node, up=up, down=down)
    try:
        pause(scene.chance.uniform(*PAST_LEASE_S))
    finally:
        scene.hold(node)


def partition(scene: Scene) -> None:
    _held(scene, up=True, down=True)


def partition_up(scene: Scene) -> None:
    _held(scene, up=True, down=False)


def partition_down(scene: Scene) -> None:
    _held(scene, up=False, down=True)


def partition_short(scene: Scene) -> None:
    node = scene.node_in_use()
    scene.hold(node, up=True, down=True)
    pause(scene.chance.uniform(1.0, 5.0))
    scene.hold(node)


def half_open_node(scene: Scene) -> None:
    scene.cut(scene.node_in_use(), lost="server")


def half_open_controller(scene: Scene) -> None:
    scene.cut(scene.node_in_use(), lost="client")


def connections_reset(scene: Scene) -> None:
    for node in scene.nodes:
        scene.cut(node)


# ------------------------------------------------------------------ disk and clock


def node_disk_full(scene: Scene) -> None:
    with scene.full_disk("node-1"):
        pause(scene.chance.uniform(3.0, 5.0))


def controller_disk_full(scene: Scene) -> None:
    with scene.full_disk("controller"):
        pause(scene.chance.uniform(2.0, 4.0))


def clock_jumps(scene: Scene) -> None:
    assert scene.clock is not None
    scene.clock.jump_to(3_600)
    pause(4.0)
    scene.clock.jump_to(0)


def _no_disk(name: str) -> Callable[[Scene], str]:
    return lambda scene: "" if name in scene.full_disks else "no right to mount a small file system"


def _no_clock(scene: Scene) -> str:
    return "" if scene.clock is not None else "no C compiler here; in the simulation only"


# ------------------------------------------------------------------ two controllers


def leader_killed(scene: Scene) -> None:
    leader = scene.leader
    scene.farm.kill(leader)
    _until_another_leads(scene, leader)
    scene.restart(leader)


def leader_asked_to_stop(scene: Scene) -> None:
    leader = scene.leader
    process = scene.farm.processes[leader]
    process.terminate()
    process.wait(30)
    _until_another_leads(scene, leader)
    scene.restart(leader)


def leader_stale(scene: Scene) -> None:
    """It stands still, its session ends, another takes over; then it goes on where it was, and believes to lead."""
    leader = scene.leader
    with scene.stopped(scene.farm.processes[leader].pid):
        for backend in scene.backends(of_leader=True):
            scene.end_session(backend)
        _until_another_leads(scene, leader)
        pause(scene.chance.uniform(0.0, 2.0))


def leader_session_ended(scene: Scene) -> None:
    """The leader lives and does not notice at once that its lead is gone."""
    for backend in scene.backends(of_leader=True):
        scene.end_session(backend)


def _until_another_leads(scene: Scene, than: str) -> None:
    scene.farm.wait_for(lambda: scene.leader != than, "another controller to lead", 30.0)


ALL: Final = (
    Fault("replica-killed", "kill -9 of a replica", replica_killed),
    Fault("zygote-killed", "kill -9 of a zygote", zygote_killed),
    Fault("daemon-killed", "kill -9 of a node daemon, back after 1 s", daemon_killed),
    Fault("daemon-stopped", "a daemon stopped (SIGSTOP) past its leases", daemon_stopped),
    Fault("node-killed", "power cut of a node, back after 10 s", node_killed),
    Fault("controller-killed", "kill -9 of the controller, back after 1 s", controller_killed),
    Fault("controller-in-submit", "kill -9 of the controller amid 40 submits", controller_killed_amid_submits, times=3),
    Fault("controller-stopped", "the controller stopped (SIGSTOP) for 5-8 s", controller_stopped),
    Fault("postgres-killed", "kill -9 of PostgreSQL", postgres_killed),
    Fault("postgres-immediate", "PostgreSQL stopped, mode immediate", postgres_immediate),
    Fault("postgres-restarted", "PostgreSQL stopped, mode fast", postgres_restarted),
    Fault("postgres-stopped", "PostgreSQL stands still (SIGSTOP) for 3-6 s", postgres_stopped),
    Fault("backend-killed", "kill -9 of a PostgreSQL backend", backend_killed),
    Fault("session-ended", "a database session terminated", session_ended),
    Fault("partition", "node and controller cut off, past the leases", partition),
    Fault("partition-up", "nothing from node to controller, past the leases", partition_up),
    Fault("partition-down", "nothing from controller to node, past the leases", partition_down),
    Fault("partition-short", "node and controller cut off for 1-5 s", partition_short),
    Fault("half-open-node", "connection half open: the controller lost it", half_open_node),
    Fault("half-open-controller", "connection half open: the node lost it", half_open_controller),
    Fault("connections-reset", "every node's connection reset", connections_reset),
    Fault("node-disk-full", "a node's disk full for 3-5 s", node_disk_full, _no_disk("node-1")),
    Fault("controller-disk-full", "PostgreSQL's disk full for 2-4 s", controller_disk_full, _no_disk("controller")),
    Fault("clock-jump", "wall clocks an hour ahead, and back after 4 s", clock_jumps, _no_clock),
    Fault("leader-killed", "kill -9 of the leader, a standby takes over", leader_killed, needs_standby=True),
    Fault("leader-asked", "the leader asked to stop, a standby takes over", leader_asked_to_stop, needs_standby=True),
    Fault("leader-stale", "a stopped leader goes on after another took over", leader_stale, needs_standby=True),
    Fault("leader-session", "the leader's session terminated", leader_session_ended, needs_standby=True),
    Fault("shared-postgres", "kill -9 of the PostgreSQL of two controllers", postgres_killed, needs_standby=True),
)
