"""`agentfarm-node`: `run` the daemon of this machine; `join` it to a farm once before."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from agentfarm.errors import FarmError
from nodeagent.log import log

EXIT_DONE: Final = 0
EXIT_ERROR: Final = 1
EXIT_PRECONDITION: Final = 5


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
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its words would stand beside our log; statuses say the same
    from nodeagent.daemon import Daemon  # noqa: PLC0415 - `join` needs none of it
    from nodeagent.start import load_settings  # noqa: PLC0415

    settings = load_settings(options.config, options.data_dir)
    log.configure(settings.log_format, settings.log_level)

    async def serve() -> None:
        daemon = Daemon(settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        await daemon.run()

    asyncio.run(serve())
    return EXIT_DONE


def _join(options: argparse.Namespace) -> int:
    from nodeagent.joining import join  # noqa: PLC0415 - brings an HTTP client and cryptography

    token = sys.stdin.read() if options.token == "-" else options.token
    name = join(token, options.data_dir)
    print(f"This machine is node {name} now. Start it: agentfarm-node run --data-dir {options.data_dir}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
