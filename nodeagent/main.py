"""`agentfarm-node`: `run` the daemon of this machine; `join` it to a farm once before."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Final

from agentfarm.errors import FarmError

EXIT_DONE: Final = 0
EXIT_ERROR: Final = 1
EXIT_PRECONDITION: Final = 5
STANDARD_INPUT: Final = "-"


def main(arguments: list[str] | None = None) -> int:
    """The program. Returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except FarmError as problem:
        print(f"agentfarm-node: {problem}", file=sys.stderr)
        return EXIT_PRECONDITION
    except KeyboardInterrupt:
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentfarm-node", description="The daemon of one machine of an agent farm.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="serve until a signal ends it",
                              epilog="example: agentfarm-node run --config node.yaml")  # fmt: skip
    run.add_argument("--config", type=Path, help="YAML settings; AGENTFARM_… variables override it")
    run.add_argument("--data-dir", type=Path, help="the node's folder; overrides the settings")
    run.set_defaults(do=_run)
    join = commands.add_parser("join", help="make this machine a node, with a token of `farmctl node invite`",
                               epilog="example: agentfarm-node join eyJ2… --data-dir /var/lib/agentfarm")  # fmt: skip
    join.add_argument("token", help="the invitation; - reads it from standard input")
    join.add_argument("--data-dir", type=Path, required=True, help="the node's folder")
    join.set_defaults(do=_join)
    return parser


def _run(options: argparse.Namespace) -> int:
    gc.disable()  # what is read here lives until the `exec`: to walk it again and again was a fifth of a start
    from nodeagent.start import become_daemon, load_settings  # noqa: PLC0415 - `join` needs none of it

    become_daemon(load_settings(options.config, options.data_dir))


def _join(options: argparse.Namespace) -> int:
    from nodeagent.join import join  # noqa: PLC0415 - brings an HTTP client and cryptography

    word = options.token
    token = sys.stdin.read() if word == STANDARD_INPUT else word
    name = join(token, options.data_dir)
    print(f"This machine is node {name} now. Start it: agentfarm-node run --data-dir {options.data_dir}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
