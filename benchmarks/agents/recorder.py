"""An agent for fault tests: notes outside of the farm that it began, takes its time, notes that it ended.

Input: {"record": path of a file to append to, "seconds": how long to take, "note": anything}. Each line is one JSON
object; one write of under 4 KiB to a file opened for appending is whole, so lines of many processes never mix. `run`
names one execution: no two have the same, also when a task or an attempt is repeated.
"""

import asyncio
import json
import os
import secrets
import time

from agentfarm.sdk import context


def _write(path: str, line: dict[str, object]) -> None:
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


async def main(record: str, seconds: float = 0.0, note: object = None) -> dict[str, object]:
    here = context()
    who = {"task": here.task_id, "attempt": here.attempt, "node": here.node, "note": note, "run": secrets.token_hex(8)}
    _write(record, {**who, "event": "began", "at": time.time()})
    if seconds:
        await asyncio.sleep(seconds)
    _write(record, {**who, "event": "ended", "at": time.time()})
    return dict(who)
