"""`farmctl feed add`, `remove`, `products`: which market products the farm feeds, and on how many nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from agentfarm.errors import NotFound
from agentfarm.names import suggestion
from farmctl import completion
from farmctl.api.session import Session
from farmctl.exit_codes import Exit
from farmctl.verb import verb

PATH: Final = "/v1/market/products"
PRODUCT_COLUMNS: Final = ("product", ">copies", "node", "state", "reason")

Products = Annotated[list[str], typer.Argument(metavar="PRODUCT…", help="As the venue writes it: BTC-USD.")]
Assigned = Annotated[
    list[str], typer.Argument(metavar="PRODUCT…", help="Products.", autocompletion=completion.products)
]  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Register the verbs under `farmctl feed`."""
    verb(app, "add", "farmctl feed add BTC-USD ETH-USD --copies 2")(add)
    verb(app, "remove", "farmctl feed remove ETH-USD")(remove)
    verb(app, "products", "farmctl feed products")(products)


def add(
    session: Session,
    names: Products,
    copies: Annotated[int | None, typer.Option(help="Nodes that feed each at once. Default: 1, or as it is.")] = None,
    source: Annotated[str | None, typer.Option(help="Only nodes whose feed has this source. Default: any.")] = None,
) -> Exit:
    """Have market products fed: the farm chooses the nodes, and others when those are lost or drained.

    Exit 2 if no node could ever feed one of them (nothing was changed then), 4 if a copy has no node yet.
    """
    body: dict[str, Any] = {"products": names}
    body |= {key: value for key, value in (("copies", copies), ("source", source)) if value is not None}
    answer = session.farm.put_json(PATH, body)

    def say() -> None:
        for product in answer["products"]:
            session.out.say(_sentence(product))

    session.out.result(answer, say)
    return Exit.PARTLY if any(product["missing"] for product in answer["products"]) else Exit.DONE


def remove(session: Session, names: Assigned) -> Exit:
    """Have market products fed no more. What was stored stays where it is. All of them or none."""
    assigned = [product["name"] for product in session.farm.get(PATH)["products"] if product["copies"] is not None]
    for name in names:
        if name not in assigned:
            listed = "'farmctl feed products' lists them." if assigned else "None is."
            remedy = suggestion(name, assigned) or listed
            raise NotFound(f"Product {name!r} is not assigned across the farm; nothing was changed.", remedy=remedy)
    removed = list(dict.fromkeys(names))
    for name in removed:
        session.farm.delete(f"{PATH}/{quote(name, safe='')}")
    session.out.result({"removed": removed}, lambda: session.out.say(f"No longer fed: {', '.join(removed)}."))
    return Exit.DONE


def products(session: Session) -> Exit:
    """Show each market product: how many nodes should feed it, which do, and how well."""
    answer = session.farm.get(PATH)

    def say() -> None:
        if answer["products"]:
            say_products(session, answer["products"])
        else:
            session.out.say("No product is fed. Add one: farmctl feed add BTC-USD")

    session.out.result(answer, say)
    return Exit.DONE


def say_products(session: Session, listed: Iterable[Mapping[str, Any]]) -> None:
    """The table of products, one line a node."""
    from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

    session.out.say(table(PRODUCT_COLUMNS, [row for product in listed for row in _rows(product)], flexible="reason"))


def _rows(product: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """A product's lines; name and copies stand in the first."""
    lines: list[tuple[object, ...]] = [
        (node["node"], node["state"], "; ".join(filter(None, (_mark(node), node["reason"]))))
        for node in product["nodes"]
    ]
    lines += [(None, "unplaced", "no node can take it: farmctl explain product " + product["name"])] * product[
        "missing"
    ]
    heads = [(product["name"], product["copies"])] + [("", "")] * len(lines)
    return [(*head, *line) for head, line in zip(heads, lines, strict=False)]


def _mark(node: Mapping[str, Any]) -> str:
    if not node["is_assigned"]:
        return "by its own settings"
    return "until another is good" if node["is_leaving"] else ""


def _sentence(product: Mapping[str, Any]) -> str:
    nodes = ", ".join(node["node"] for node in product["nodes"]) or "no node"
    missing = product["missing"]
    short = f"; no node can take {missing} more: farmctl explain product {product['name']}" if missing else ""
    return f"{product['name']} is fed by {nodes}{short}."
