"""One run of `farmctl dev`, from its options to its exit code: take the folder, start, stay or check, stop, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from agentfarm.errors import FarmError
from farmctl.dev.agents import ROLLED_OUT_WITHIN_S, Example, Examples
from farmctl.dev.command import DevSettings
from farmctl.dev.farm import DevFarm
from farmctl.dev.folder import forget, open_folder
from farmctl.dev.market.choice import MarketKind
from farmctl.dev.once.report import print_report
from farmctl.dev.once.run import Report, work_through
from farmctl.dev.processes.records import end_leftovers
from farmctl.dev.run import addresses, stay_up
from farmctl.dev.screen import LineScreen, LiveScreen
from farmctl.dev.snapshot import Glimpse
from farmctl.dev.stop import Interrupted, StopWish
from farmctl.display.console import Output
from farmctl.exit_codes import Exit, exit_of


def run(options: dict[str, Any]) -> Exit:
    """The exit code: 0 when it worked or was stopped by hand, 130 when it was stopped before it was ready."""
    out = Output(is_json=bool(options["is_json"]))
    try:
        settings = DevSettings(**options)
        folder, lock = open_folder(settings.data_dir)
    except FarmError as problem:
        out.problem(problem)
        return exit_of(problem)
    began = time.monotonic()
    progress = _Progress(out, began)
    try:
        with StopWish() as wish:
            if settings.is_fresh:
                end_leftovers(folder.records, progress.say)
                progress.say(f"forgetting everything in {folder.root}")
                forget(folder)
            return _run(DevFarm(settings, folder, wish, progress.say), out, wish, progress, began)
    except FarmError as problem:
        out.problem(problem)
        return exit_of(problem)
    finally:
        lock.release()


def _run(farm: DevFarm, out: Output, wish: StopWish, progress: _Progress, began: float) -> Exit:
    """Start, work, stop in every case; then report."""
    report = Report()
    code = Exit.DONE
    problem: FarmError | None = None
    try:
        farm.start()
        examples = Examples(farm.settings.examples, farm.folder.examples, progress.say).deploy(
            farm.client, has_market=farm.market.kind is not MarketKind.OFF, is_once=farm.settings.is_once
        )
        _wait_for_rollouts(farm, examples)
        agents = [example.name for example in examples]
        report.seconds_to_ready = time.monotonic() - began
        progress.say(f"the farm is ready after {report.seconds_to_ready:.1f} s")
        if farm.settings.is_once:
            work_through(farm, agents, wish, report)
        else:
            _stay(farm, agents, out, wish, progress)
    except Interrupted:
        code = Exit.DETACHED
    except FarmError as error:
        problem, code = error, exit_of(error)
    finally:
        progress.use(None)
        report.left_behind = farm.stop()
    report.seconds = time.monotonic() - began
    return _conclude(farm, report, out, code, problem)


def _stay(farm: DevFarm, agents: list[str], out: Output, wish: StopWish, progress: _Progress) -> None:
    console = out.errors if out.is_json else out.console
    if out.is_json:
        about = {"server": farm.ports.server, "token_file": str(farm.folder.token_file), "market": farm.market.kind}
        out.json_line(about | {"nodes": farm.settings.node_names, "notes": farm.notes})
    is_live = console.is_terminal and not out.is_json
    console.print()
    for label, words in addresses(farm):
        console.print(f"  {label:8} {words}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    with LiveScreen(console) if is_live else LineScreen(console) as screen:
        progress.use(screen.say)
        stay_up(farm, agents, screen, wish)


def _wait_for_rollouts(farm: DevFarm, examples: Sequence[Example]) -> None:
    """Until the examples run; those that need market data, unless it has failed.

    It does not wait for agents that a person deployed: they may be meant to fail.
    """

    def missing(seen: Glimpse) -> list[str]:
        hopeless = [example.name for example in examples if example.needs_market and seen.market_failure]
        expected = {example.name for example in examples}.difference(hopeless)
        return [name for name in seen.unfinished() if name in expected]

    try:
        farm.wait_for(lambda seen: not missing(seen), lambda seen: f"{', '.join(missing(seen))} did not start",
                      ROLLED_OUT_WITHIN_S)  # fmt: skip
    except FarmError as problem:
        if farm.settings.is_once:
            raise
        farm.notes.append(problem.problem.splitlines()[0])


def _conclude(farm: DevFarm, report: Report, out: Output, code: Exit, problem: FarmError | None) -> Exit:
    if problem is not None:
        if out.is_json and farm.settings.is_once:
            out.result(report.to_dict(farm) | {"ok": False, "problem": str(problem)})
        else:
            out.problem(problem)
        return code
    if code is not Exit.DONE or not farm.settings.is_once:
        if out.is_for_people:
            out.say("The farm is stopped; its state is kept.")
        return code
    out.result(report.to_dict(farm), lambda: print_report(out.console, report, farm))
    return Exit.DONE if report.is_ok else Exit.ERROR


class _Progress:
    """Steps in words, with the seconds since the start; above the live screen while there is one."""

    def __init__(self, out: Output, began: float) -> None:
        self._out = out
        self._began = began
        self._screen: Callable[[str], None] | None = None

    def use(self, say: Callable[[str], None] | None) -> None:
        """Speak through a screen from now on; None: plainly."""
        self._screen = say

    def say(self, text: str) -> None:
        """One step."""
        line = f"{time.monotonic() - self._began:6.1f} s  {text}"
        if self._screen is not None:
            self._screen(line)
        else:
            console: Console = self._out.errors if not self._out.is_for_people else self._out.console
            console.print(line, highlight=False, markup=False, soft_wrap=True)
