"""How a function becomes a verb: every verb gets --json, the connection options, an example, exit codes, and a border
that turns each expected failure into words instead of a traceback.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from agentfarm.agents.units import duration_s
from agentfarm.errors import FarmError, InvalidRequest
from farmctl.api.session import Session
from farmctl.display.console import Output
from farmctl.exit_codes import HELP, Exit, exit_of

F = TypeVar("F", bound=Callable[..., Exit | None])
PANEL: Final = "Connection and output"

JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs.", rich_help_panel=PANEL)]
EventsOption = Annotated[bool, typer.Option("--events", help="Progress as NDJSON.", rich_help_panel=PANEL)]
ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The gateway. [AGENTFARM_SERVER]", rich_help_panel=PANEL)
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="The token. [AGENTFARM_TOKEN_FILE]", rich_help_panel=PANEL),
]


def verb(app: typer.Typer, name: str, example: str, *, is_long: bool = False) -> Callable[[F], F]:
    """Register a function `(session, ...) -> Exit | None` as a verb. is_long: it has --events too."""

    def register(function: F) -> F:
        own = inspect.signature(function, eval_str=True)
        shared = {"json_": JsonOption, "server": ServerOption, "token_file": TokenOption}
        if is_long:
            shared["events_"] = EventsOption
        parameters = [p for p in own.parameters.values() if p.name != "session"]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=kind)
            for key, kind in shared.items()
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

        def run(**given: Any) -> None:
            out = Output(is_json=given.pop("json_"), is_events=given.pop("events_", False))
            session = Session(out, given.pop("server"), given.pop("token_file"))
            raise typer.Exit(int(bordered(session, functools.partial(function, session, **given))))

        run.__name__ = name
        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name, epilog=f"Example: {example}\n\n{HELP}", no_args_is_help=False)(run)
        return function

    return register


_DEFAULTS: Final[dict[str, Any]] = {"json_": False, "server": None, "token_file": None, "events_": False}


def bordered(session: Session, work: Callable[[], Exit | None]) -> Exit:
    """Do the work of a verb; every expected failure becomes words and an exit code."""
    try:
        return work() or Exit.DONE
    except FarmError as error:
        session.out.problem(error)
        return exit_of(error)
    except KeyboardInterrupt:
        return detached(session)
    except BrokenPipeError:  # the reader has seen enough, as with `farmctl events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    finally:
        session.close()


def detached(session: Session) -> Exit:
    """Ctrl-C: nothing on the farm is stopped by it."""
    again = f" Look again: {session.again}" if session.again else ""
    session.out.event("detached", f"\nDetached; the farm goes on.{again}", again=session.again)
    return Exit.DETACHED


def duration(text: str | None) -> float | None:
    """An option such as `90s` or `5m`, in seconds. A bare number is seconds."""
    if text is None:
        return None
    try:
        return float(text) if _is_plain(text) else duration_s(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is not a duration: it {error}.") from error


def _is_plain(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() and text.isascii()
