"""The program `farmctl`: its verbs, and the border at which usage errors become words and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from agentfarm.errors import FarmError, InvalidRequest
from agentfarm.names import suggestion
from farmctl.dev.command import dev
from farmctl.display.console import Output
from farmctl.exit_codes import HELP, Exit
from farmctl.verbs import audit, deployments, drain, feed, logs, nodes, products, tasks
from farmctl.verbs import status as looking

USAGE = """Run an agent farm: deploy agents, submit tasks, look after nodes.

The farm is found by --server, AGENTFARM_SERVER, or the one that `farmctl dev` runs in this folder.
"""


app = typer.Typer(
    name="farmctl", help=USAGE, epilog=f"Example: farmctl dev\n\n{HELP}", no_args_is_help=True,
    rich_markup_mode="rich", pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

app.command("dev", epilog=f"Example: farmctl dev --market simulated\n\n{HELP}")(dev)
looking.add_to(app)
deployments.add_to(app)
app.add_typer(tasks.app, name="task")
app.add_typer(nodes.app, name="node")
products.add_to(feed.app)
audit.add_to(feed.app)
app.add_typer(feed.app, name="feed")
nodes.add_to(app)
drain.add_to(app)
logs.add_to(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Nothing expected leaves as an exception."""
    command = typer.main.get_command(app)
    is_json = "--json" in arguments
    try:
        return int(command.main(args=list(arguments), prog_name="farmctl", standalone_mode=False) or 0)
    except typer.Abort:
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.DETACHED
    except Exception as error:
        problem = _usage_problem(error)
        if problem is None:
            raise
        Output(is_json=is_json).problem(problem)
        return Exit.ERROR


def main() -> None:
    """The entry point."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = Exit.DONE
        sys.stderr.close()
    sys.exit(int(code))


def _usage_problem(error: Exception) -> FarmError | None:
    """A wrong command line as an error of ours; none if it is anything else."""
    words = getattr(error, "format_message", None)
    if words is None:
        return None
    text = str(words())
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "farmctl"
    guess = "" if "Did you mean" in text else _nearest_verb(error)
    remedy = " ".join(part for part in (guess, f"Help: {where} --help") if part)
    return InvalidRequest(text, remedy=remedy)


def _nearest_verb(error: Exception) -> str:
    """The verb that was probably meant, where the program's own search found none."""
    context: Any = getattr(error, "ctx", None)
    message = str(getattr(error, "message", ""))
    if context is None or not isinstance(context.command, TyperGroup) or message.count("'") < 2:
        return ""
    return suggestion(message.split("'")[1], context.command.list_commands(context))
