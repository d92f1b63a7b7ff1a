"""The verb `farmctl dev`: options in, exit code out. Slow imports happen when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dev(
    *,
    once: Annotated[bool, typer.Option("--once", help="Check that everything works, then stop: 0 or 1.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the state of earlier starts first.")] = False,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many node daemons.")] = 3,
    market: Annotated[
        str,
        typer.Option(
            "--market",
            metavar="SOURCE",
            help="auto, live, binance, simulated, simulated-binance, off, or a capture file to play.",
        ),
    ] = "auto",
    questdb: Annotated[
        str | None, typer.Option("--questdb", metavar="URL", help="A QuestDB that runs already, instead of our own.")
    ] = None,
    data_dir: Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Where everything is kept.")] = Path(
        ".farm"
    ),
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="The gateway's. [default: 8600, or the next free one]")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")] = False,
) -> None:
    """Run a whole farm on this machine: controller, PostgreSQL, nodes, QuestDB, example agents.

    It stays up until Ctrl-C, which stops every process it started. A second start goes on from the first's state.
    """
    from farmctl.dev.main import run  # noqa: PLC0415 - process handling and tables, which `farmctl --help` must not cost

    raise typer.Exit(
        run(
            {"is_once": once, "is_fresh": fresh, "nodes": nodes, "market": market, "questdb_url": questdb,
             "data_dir": data_dir, "port": port, "is_json": json_}
        )
    )  # fmt: skip
