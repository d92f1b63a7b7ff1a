"""From settings to a running daemon, in two steps of one process.

The first reads YAML and the package's version, which costs memory that would never be given back; so it then becomes
the daemon by `exec`, handing over what it read. The process, its pid and its parent stay the same.

    agentfarm-node run  ──exec──▶  python -m nodeagent.start FD
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from agentfarm.errors import FarmError
from nodeagent.machine.logging import log
from nodeagent.settings import ENV_PREFIX, NodeSettings

EXIT_PRECONDITION: Final = 5
_SETTINGS_BYTES_MAX: Final = 2**20
_DAEMON_ENVIRONMENT: Final = {
    "GRPC_VERBOSITY": "NONE",  # its words would stand beside our log; statuses say the same
    "MALLOC_ARENA_MAX": "2",  # gRPC's threads need no heap each
}


def load_settings(config: Path | None, data_dir: Path | None) -> NodeSettings:
    """Settings of the file, the environment, and the command line. Raises InvalidRequest naming every problem."""
    read_settings = import_module("agentfarm.settings").read_settings
    env = dict(os.environ)
    if data_dir is not None:
        env[f"{ENV_PREFIX}_DATA_DIR"] = str(data_dir.resolve())
    settings: NodeSettings = read_settings(NodeSettings, config, ENV_PREFIX, env)
    return settings


def become_daemon(settings: NodeSettings) -> NoReturn:
    """The second step, in this process."""
    version = import_module("importlib.metadata").version("agentfarm")
    handed = json.dumps({"version": version, "settings": asdict(settings)}, default=str).encode()
    fd = os.memfd_create("settings", 0)
    os.write(fd, handed)
    command = [sys.executable, "-m", "nodeagent.start", str(fd)]
    os.execve(sys.executable, command, {**_DAEMON_ENVIRONMENT, **os.environ})  # noqa: S606 - this is the point


def main(fd: int) -> int:
    """The daemon. Returns its exit code."""
    gc.disable()  # until all is imported
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        handed = json.loads(file.read(_SETTINGS_BYTES_MAX))
    settings = NodeSettings.from_dict(handed["settings"])
    log.configure(settings.log_format, settings.log_level)
    try:
        asyncio.run(_serve(settings, handed["version"]))
    except FarmError as problem:
        print(f"agentfarm-node: {problem}", file=sys.stderr)
        return EXIT_PRECONDITION
    return 0


async def _serve(settings: NodeSettings, version: str) -> None:
    from nodeagent.daemon import Daemon  # noqa: PLC0415 - the first step has no use for it

    daemon = Daemon(settings, version)
    gc.freeze()  # what was imported lives as long as we do: no collection looks at it again
    gc.enable()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.ask_to_stop)
    await daemon.run()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
