"""The controller's program: `agentfarm-controller --config FILE`.

It reads the settings, then runs the controller until a signal ends it. Nothing here decides. A part that dies takes the
process down loudly, and the service manager starts it again. Libraries are imported inside the functions, after the
garbage collector is off: it would walk their objects again and again, which costs a fifth of a start's time.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.settings import ControllerSettings
    from controller.start import StartTimes


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit 0 when asked to stop, 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="agentfarm-controller", description="The controller of an agent farm.",
        epilog="Example: agentfarm-controller --config /etc/agentfarm/controller.yaml",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, help="settings, YAML; see docs/operating.md")
    arguments = parser.parse_args()
    gc.disable()  # until the start is over; see Controller
    from agentfarm.errors import FarmError  # noqa: PLC0415
    from agentfarm.settings import read_settings  # noqa: PLC0415
    from controller.settings import ControllerSettings  # noqa: PLC0415
    from controller.start import StartTimes  # noqa: PLC0415

    try:
        settings = read_settings(ControllerSettings, arguments.config, "AGENTFARM_CONTROLLER")
        _serve(settings, StartTimes())
    except FarmError as problem:
        print(f"agentfarm-controller: {problem}", file=sys.stderr)
        sys.exit(1)


def _serve(settings: ControllerSettings, times: StartTimes) -> None:
    import uvloop  # noqa: PLC0415

    _start_logging(settings.log_format, settings.log_level)
    uvloop.run(_run(settings, times))


def _start_logging(log_format: str, level: str) -> None:
    """Structured events with fixed names on standard error. log_format: console or json; level: as in the settings."""
    import logging  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


async def _run(settings: ControllerSettings, times: StartTimes) -> None:
    import asyncio  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    from agentfarm.service import first_of  # noqa: PLC0415
    from controller.service import Controller  # noqa: PLC0415

    times.reached("imports")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    controller = Controller(settings, times)
    try:
        await controller.start()
        ended = await first_of(stopping.wait(), controller.wait())
        ended.result()  # raises what killed a part: the service manager starts us again
        structlog.get_logger("controller.main").info("controller.stopping")
    finally:
        await controller.stop()


if __name__ == "__main__":
    main()
