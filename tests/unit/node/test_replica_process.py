"""A replica's process as the daemon holds it: what speaks damaged frames is ended, whatever the damage."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.replicas.process import Exit, ReplicaProcess
from nodeagent.replicas.relay import read_call_0_1
from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import Kind
from nodeagent.runner.protocol.launch import start_ticks

GIVE_UP_S = 60.0


@pytest.fixture
def pid() -> Iterator[int]:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, start_new_session=True) as child:
        yield child.pid
        child.kill()


@pytest.mark.parametrize(
    ("kind", "read", "body"),
    [
        (Kind.RESULTS, frames.read_results, b"short"),
        (Kind.OUTPUT, frames.read_output, b"short"),
        (Kind.PONG, frames.read_pong, b"short"),
        (Kind.HELLO, lambda body: json.loads(body)["held"], b"{}"),
        (Kind.AGENT_CALL, frames.read_call, b"short"),
        (Kind.CHECKPOINT_PUT, lambda body: read_call_0_1(Kind.CHECKPOINT_PUT, body), frames.pack_parts([b"{}"])),
        (Kind.CHECKPOINT_GET, lambda body: read_call_0_1(Kind.CHECKPOINT_GET, body), frames.pack_parts([b"no JSON"])),
    ],
)
async def test_a_replica_of_damaged_frames_is_ended(
    tmp_path: Path, pid: int, kind: Kind, read: Callable[[bytes], object], body: bytes
) -> None:
    process = ReplicaProcess.attach(tmp_path, pid, start_ticks(pid), lambda _, body: read(body))
    process.data_received(frames.frame(kind, body))
    process.take_exit(pid, signal.SIGKILL)
    async with asyncio.timeout(GIVE_UP_S):
        assert await process.exited == Exit(signal.SIGKILL, was_ours=True)
