"""From a fork of the zygote to a replica: its own session, streams, limits; then the loop, until its stop.

Order matters: the process names itself in its folder and listens before anything of the agent can run, so that whatever
happens afterwards a daemon can find it, hear from it, and end it with everything it started.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from nodeagent.runner.protocol.frames import PROTOCOL
from nodeagent.runner.protocol.launch import LOG_NAME, PROCESS_NAME, SLOTS_NAME, SOCKET_NAME, Launch, start_ticks
from nodeagent.runner.protocol.output_log import OutputLog
from nodeagent.runner.protocol.slots import Slots
from nodeagent.runner.protocol.unix_sockets import listen
from nodeagent.runner.replica.control import Control
from nodeagent.runner.replica.lease import ReplicaLease, Verdict
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.runtime import Runtime

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
EXIT_DELIVERY_S: Final = 2.0
"""How long a stopping replica tries to hand over what it still has to say."""
ABANDONED_AFTER_S: Final = 5.0
MEMORY_SLACK_MIB: Final = 1024
"""Address space for thread stacks and the like above the spec's memory: the limit is a backstop against runaways."""

_libc = ctypes.CDLL(None, use_errno=True)


def become_replica(launch: Launch, agent: Any | None, forked_at_ns: int, *, zygote: int) -> NoReturn:
    """Run as this replica and exit. `agent` is the loaded agent, or None: load it here. `zygote`: who forked us."""
    code = 1
    try:
        if launch.ends_with_zygote:
            _die_with(zygote)
        log = take_streams(launch.home / LOG_NAME, launch.log_bytes_max)
        listener = _take_place(launch)
        _limit(launch)
        os.environ.update({**launch.environment, **launch.variables})
        os.chdir(launch.bundle)
        gc.freeze()
        gc.enable()
        if agent is None:
            from agentfarm.sdk import load_agent  # noqa: PLC0415 - needs the agent's environment

            agent = load_agent(Path(launch.bundle), launch.entry)
        asyncio.run(_serve(launch, agent, listener, log, forked_at_ns))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # no exit handlers of the zygote, no waiting for an agent's threads


async def _serve(launch: Launch, agent: Any, listener: socket.socket, log: OutputLog, forked_at_ns: int) -> None:
    ready_ms = 0

    def hello() -> dict[str, object]:
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "replica_id": launch.replica_id,
            "ready_ms": ready_ms,
            "concurrency": launch.concurrency,
        }

    def chores() -> None:
        log.rotate_if_large()
        runtime.deliver()
        if control.silence_s > ABANDONED_AFTER_S and not launch.home.exists():
            runtime.stop()  # the node was taken away, folder and all: no daemon will come back
        if lease.is_needed:
            _mind_lease(lease.look(time.monotonic(), has_work=bool(ledger.tokens)), ledger, runtime)

    ledger, lease = Ledger(), ReplicaLease(launch.is_exclusive)
    control = Control(listener, ledger, lease, hello, chores)
    runtime = Runtime(agent, launch, control, ledger, lease, Slots(launch.home / SLOTS_NAME, launch.concurrency))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.stop)
    ready_ms = max(1, (time.monotonic_ns() - forked_at_ns) // 1_000_000)
    control.start(runtime)
    await runtime.serve()
    control.stop(EXIT_DELIVERY_S)


def _mind_lease(verdict: Verdict, ledger: Ledger, runtime: Runtime) -> None:
    if verdict is Verdict.KILL:
        print("agentfarm: the lease of an exclusive attempt is over, and it does not end", file=sys.stderr)
        os.killpg(0, signal.SIGKILL)
    elif verdict is Verdict.CANCEL:
        runtime.cancel(ledger.tokens)


def _die_with(parent: int) -> None:
    """Let the kernel end us when our zygote is gone, whatever we do at that moment, or at once if it is gone already.

    It alone ends an exclusive replica that stands still while the daemon is dead; without it nothing would.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def take_streams(path: Path, bytes_max: int) -> OutputLog:
    """Everything this process and its children write goes to `path`."""
    log = OutputLog(path, bytes_max)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()
    return log


def _take_place(launch: Launch) -> socket.socket:
    """A session of our own (its number is our process id: one signal reaches all), a name, and the socket."""
    os.setsid()
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_name(f"af:{launch.deployment}/{launch.seat}")
    listener = listen(launch.home / SOCKET_NAME)
    identity = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
    staged = launch.home / f".{PROCESS_NAME}"
    staged.write_text(json.dumps(identity))
    staged.rename(launch.home / PROCESS_NAME)
    return listener


def set_name(name: str) -> None:
    """What `ps` and `top` show; the kernel keeps 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Orphans among our descendants become our children instead of init's."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _limit(launch: Launch) -> None:
    """Limits that need no privilege. Cgroups, where there are any, are the daemon's business and come on top."""
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, launch.open_files_max)
    _lower(resource.RLIMIT_DATA, _data_bytes() + (launch.memory_mib + MEMORY_SLACK_MIB) * 2**20)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(kind, (value, value))


def _data_bytes() -> int:
    """What the zygote's heap takes already."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()
