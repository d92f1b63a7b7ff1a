"""Questions to this node's market data: each is answered by a program of its own, beside the feed.

One at a time, so that an operator's curiosity never costs the feed more than one process of low priority.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentfarm.errors import Conflict, FarmError, InvalidRequest
from agentfarm.process import read_program
from agentfarm.wire import market_pb2 as wire
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
SWITCHES: Final = frozenset({"open"})


class MarketQuestions:
    """Answers one question at a time."""

    def __init__(self, folder: Path, runtime: RuntimeFolder, products: Callable[[], Sequence[str]]) -> None:
        """folder: the node's data. products: those of its feed."""
        self._folder = folder
        self._runtime = runtime
        self._products = products
        self._verb = ""
        """Of the question that is being answered."""

    async def answer(self, question: wire.MarketQuestion) -> AsyncGenerator[bytes]:
        """Whole lines of JSON. Raises Conflict when it cannot be asked now, InvalidRequest for what we do not know."""
        command = self._command(question)
        self._verb = question.verb
        errors = self._folder / "feed" / "audit.log"
        log.info("market.asked", verb=question.verb)
        code: int | None = None
        try:
            errors.parent.mkdir(parents=True, exist_ok=True)
            with errors.open("wb") as file:
                async with read_program(command, errors=file, patience_s=STOP_S) as (process, output):
                    yield STARTED
                    async for lines in _lines(output):
                        yield lines
                    with suppress(TimeoutError):
                        code = await asyncio.wait_for(process.wait(), STOP_S)
        finally:
            self._verb = ""
            log.info("market.answered", verb=question.verb, code=code)
        if code not in ANSWERED:
            words = (last_lines(errors, 1) or [""])[0]
            raise FarmError(f"The program ended with code {code}: {words}")

    def _command(self, question: wire.MarketQuestion) -> list[str]:
        """The program that answers."""
        if self._verb:
            raise Conflict(
                f"This node is answering another question ({self._verb}).", remedy="Ask again when it is done."
            )
        endpoint = self._folder / "questdb" / "endpoint.json"
        if not endpoint.exists():
            raise Conflict("This node's QuestDB is not there yet.", remedy="See: farmctl feed status.")
        arguments = [question.verb, *arguments_of(question.verb, question.arguments), f"--endpoint={endpoint}"]
        if question.verb != "gaps":
            arguments.append(str(self._folder / "capture"))
        products = self._products()
        if question.verb == "replay" and products:
            arguments.append(f"--known={','.join(products)}")
        return self._runtime.command(OUR_PYTHON, PROGRAM, *arguments)


def arguments_of(verb: str, arguments: Mapping[str, str]) -> list[str]:
    """A question's arguments as a command line. Pure.

    Raises InvalidRequest for what this release does not know: leaving out a limit would be another question.
    """
    known_options = OPTIONS.get(verb)
    if known_options is None:
        raise InvalidRequest(f"This node's release knows no question {verb!r}.", remedy="Upgrade the node.")
    options = []
    for name, value in arguments.items():
        if name not in known_options:
            raise InvalidRequest(f"This node's release knows no {name!r} of {verb}.", remedy="Upgrade the node.")
        if name in SWITCHES:
            options += [f"--{name}"] * (value == "true")
        elif value:
            options.append(f"--{name}={value}")
    return options


async def _lines(output: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, as they come, many at once where they come fast."""
    rest = b""
    while chunk := await output.read(CHUNK_BYTES_MAX):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield whole + newline
