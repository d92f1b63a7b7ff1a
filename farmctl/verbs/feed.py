"""`farmctl feed …`: how market data stands on the farm, and what a recording holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from farmctl.api.session import Session
from farmctl.exit_codes import Exit
from farmctl.verb import verb
from farmctl.verbs.products import say_products

app = typer.Typer(help="Market data: how it stands, and what a recording holds.", no_args_is_help=True)


@verb(app, "status", "farmctl feed status")
def status(session: Session) -> Exit:
    """Show each node's feed, and where each product is fed and how well. Exit 1 if a feed has failed."""
    nodes = [_feed_of(node) for node in session.farm.get("/v1/nodes")["nodes"] if _has_feed(node)]
    listed = session.farm.get("/v1/market/products")["products"]

    def say() -> None:
        from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

        if not nodes:
            session.out.say("No node has market data. Set `market` in a node's settings: docs/market-data.md")
            return
        rows = [(n["node"], n["state"], " ".join(n["products"]), n["rows"], n["lag_ms"]) for n in nodes]
        session.out.say(table(("node", "state", "products", ">rows", ">lag ms"), rows, flexible="state"))
        if listed:
            say_products(session, listed)

    session.out.result({"nodes": nodes, "products": listed}, say)
    return Exit.ERROR if any(node["state"].startswith("failed") for node in nodes) else Exit.DONE


@verb(app, "inspect", "farmctl feed inspect capture.jsonl.gz")
def inspect(session: Session, file: Annotated[Path, typer.Argument(help="A recording of any known format.")]) -> Exit:
    """Send a recording through the real feed and print what it holds, per product. Needs no farm."""
    command = [
        sys.executable,
        "-m",
        "nodeagent.market.audit.inspect",
        str(file),
    ]  # a program: farmctl knows no node code
    done = subprocess.run(command + ["--json"] * session.out.is_json, check=False)
    return Exit.DONE if done.returncode == 0 else Exit.ERROR


def _has_feed(node: Mapping[str, Any]) -> bool:
    return bool((node["measured"] or {}).get("market_state"))


def _feed_of(node: Mapping[str, Any]) -> dict[str, Any]:
    measured = node["measured"]
    return {
        "node": node["name"],
        "state": measured["market_state"],
        "products": node["products"],
        "rows": measured["market_rows"],
        "lag_ms": measured["market_lag_ms"],
    }
