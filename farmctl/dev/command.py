"""The verb `farmctl dev` and its options: options in, exit code out. Slow imports happen when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from agentfarm.errors import InvalidRequest

NODES_MAX: Final = 50
"""More daemons than this on one machine measure the machine, not the farm."""
EXAMPLES: Final = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class DevSettings:
    """The options as one value; `port` None takes the first free one."""

    data_dir: Path = Path(".farm")
    nodes: int = 3
    market: str = "auto"
    questdb_url: str | None = None
    port: int | None = None
    is_once: bool = False
    is_json: bool = False
    is_fresh: bool = False
    examples: Path = EXAMPLES

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise InvalidRequest(f"--nodes must be from 1 to {NODES_MAX}, not {self.nodes}.")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InvalidRequest(f"--port must be from 1 to 65535, not {self.port}.")

    @property
    def node_names(self) -> list[str]:
        """The first holds market data."""
        return [f"node-{number}" for number in range(1, self.nodes + 1)]


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
