"""Questions of the controller's to this node's market data: each answered by a program of its own, beside the feed.

One at a time, so that an operator's curiosity never costs the feed more than one process of low priority.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import Conflict, FarmError, InvalidRequest
from agentfarm.process import kill_group
from agentfarm.service import Tasks
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.problems import LinkAway
from nodeagent.link.calls import Calls
from nodeagent.machine.logging import log
from nodeagent.machine.programs import OUR_PYTHON, RuntimeFolder
from nodeagent.replicas.logs import last_lines

PROGRAM: Final = "nodeagent.market.audit"
CHUNK_BYTES_MAX: Final = 64 * 1024
STOP_S: Final = 2.0
STARTED: Final = b'{"event": "started"}\n'
"""Sent at once: a node that knows no such questions says nothing."""
ANSWERED: Final = frozenset({0, 1, 5})
"""Exit codes of a program that has said itself how it went."""
OPTIONS: Final = {
    "gaps": frozenset({"product", "since", "open"}),
    "verify": frozenset({"product", "since"}),
    "replay": frozenset({"product", "since", "until"}),
}


class FeedQuestions:
    """The question being answered, if there is one."""

    def __init__(
        self, folder: Path, runtime: RuntimeFolder, calls: Calls, outgoing: Outgoing,
        products: Callable[[], Sequence[str] | None],
    ) -> None:  # fmt: skip
        """folder: the node's data. products: those of its feed; None while it has no market data."""
        self._folder = folder
        self._runtime = runtime
        self._calls = calls
        self._outgoing = outgoing
        self._products = products
        self._asked = (0, "")
        self._tasks = Tasks("questions")
        self._task: asyncio.Task[None] | None = None

    def begin(self, request: wire.FeedRequest) -> None:
        """Answer it, or say why not."""
        try:
            command = self._command(request)
        except FarmError as refusal:
            self._end(request.request_id, " ".join((refusal.problem, refusal.remedy)).strip())
            return
        self._asked = (request.request_id, request.verb)
        self._task = self._tasks.errand(self._serve(request.request_id, request.verb, command))

    def end(self, request_id: int) -> None:
        """The controller has enough."""
        if self._task is not None and self._asked[0] == request_id:
            self._task.cancel()

    async def stop(self) -> None:
        """End it."""
        await self._tasks.end()

    def _command(self, request: wire.FeedRequest) -> list[str]:
        """The program that answers. Raises Conflict when it cannot be asked now, InvalidRequest for what we do not
        know."""
        products = self._products()
        if products is None:
            raise Conflict("This node has no market data.")
        if self._task is not None and not self._task.done():
            raise Conflict(
                f"This node is answering another question ({self._asked[1]}).", remedy="Ask again when it is done."
            )
        endpoint = self._folder / "questdb" / "endpoint.json"
        if not endpoint.exists():
            raise Conflict("This node's QuestDB is not there yet.", remedy="See: farmctl feed status.")
        arguments = [request.verb, *arguments_of(request.verb, request.arguments_json), f"--endpoint={endpoint}"]
        if request.verb != "gaps":
            arguments.append(str(self._folder / "capture"))
        if request.verb == "replay" and products:
            arguments.append(f"--known={','.join(products)}")
        return self._runtime.command(OUR_PYTHON, PROGRAM, *arguments)

    async def _serve(self, number: int, verb: str, command: list[str]) -> None:
        words = self._folder / "feed" / "audit.log"
        log.info("market.asked", verb=verb)
        code: int | None = None
        try:
            words.parent.mkdir(parents=True, exist_ok=True)
            with words.open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
                    start_new_session=True,
                )  # fmt: skip
            try:
                assert process.stdout is not None
                await self._calls.push_log(_pieces(number, process.stdout))
                with suppress(TimeoutError):  # it writes on: the controller has enough
                    code = await asyncio.wait_for(process.wait(), STOP_S)
            finally:
                await _ended(process)
        except (LinkAway, FarmError, OSError) as problem:
            self._end(number, str(problem) or type(problem).__name__)
        else:
            said = (last_lines(words, 1) or [""])[0] if code not in ANSWERED else ""
            self._end(number, f"The program ended with code {code}: {said}" if code not in ANSWERED else "")
        finally:
            log.info("market.answered", verb=verb, code=code)

    def _end(self, number: int, problem: str) -> None:
        self._outgoing.log_end(wire.LogEnd(request_id=number, problem=problem))


def arguments_of(verb: str, arguments_json: str) -> list[str]:
    """A question's arguments as a command line. Pure.

    Raises InvalidRequest for what this release does not know: leaving out a limit would be another question.
    """
    known = OPTIONS.get(verb)
    if known is None:
        raise InvalidRequest(f"This node's release knows no question {verb!r}.", remedy="Upgrade the node.")
    try:
        said: Any = json.loads(arguments_json or "{}")
    except ValueError as error:
        raise InvalidRequest(f"The question's arguments are not JSON: {error}.") from error
    if not isinstance(said, dict):
        raise InvalidRequest("The question's arguments are no object.")
    arguments = []
    for name, value in said.items():
        if name not in known:
            raise InvalidRequest(f"This node's release knows no {name!r} of {verb}.", remedy="Upgrade the node.")
        if value is True:
            arguments.append(f"--{name}")
        elif isinstance(value, str) and value:
            arguments.append(f"--{name}={value}")
    return arguments


async def _pieces(number: int, output: asyncio.StreamReader) -> AsyncIterator[wire.PushLogRequest]:
    """Whole lines, as they come, many at once where they come fast."""
    yield wire.PushLogRequest(request_id=number, lines=STARTED)
    rest = b""
    while chunk := await output.read(CHUNK_BYTES_MAX):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield wire.PushLogRequest(request_id=number, lines=whole + newline)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Make sure that nothing of it is left."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        kill_group(process.pid)
        await process.wait()
