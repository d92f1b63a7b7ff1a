"""`farmctl feed gaps`, `verify`, `replay`, `compare`: is market data whole, and what to do when it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agentfarm.errors import InvalidRequest
from farmctl import completion
from farmctl.api.session import Session
from farmctl.display.market_answers import Answers, moment, read_answers, run_program, say_problems
from farmctl.exit_codes import Exit
from farmctl.verb import verb

FILE_ENDINGS: Final = (".gz", ".zst", ".txt", ".jsonl", ".ndjson", ".json", ".afcap")
MAX_SPEED: Final = "max"
SINCE: Final = "How long ago, or a time: 2h, 2026-03-01T12:00:00Z."

Node = Annotated[str | None, typer.Option(help="This node alone.", autocompletion=completion.nodes)]
ProductArgument = Annotated[
    str | None, typer.Argument(metavar="[PRODUCT]", help="Default: all.", autocompletion=completion.products)
]
ProductOption = Annotated[str | None, typer.Option(help="This product alone.", autocompletion=completion.products)]
Since = Annotated[str | None, typer.Option(help=f"What was received since. {SINCE}")]
Until = Annotated[str | None, typer.Option(help=f"What was received before. {SINCE}")]
Endpoint = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With a PATH: endpoint.json of the QuestDB to hold it against.")
]


def add_to(app: typer.Typer) -> None:
    """Register the verbs under `farmctl feed`."""
    verb(app, "gaps", "farmctl feed gaps BTC-USD --since 1h")(gaps)
    verb(app, "verify", "farmctl feed verify BTC-USD --since 1h", is_long=True)(verify)
    verb(app, "replay", "farmctl feed replay --node node-1 --since 2h", is_long=True)(replay)
    verb(app, "compare", "farmctl feed compare advanced/capture exchange/capture", is_long=True)(compare)


def gaps(
    session: Session,
    product: ProductArgument = None,
    node: Node = None,
    since: Annotated[str, typer.Option(help=f"Found since, or still open. {SINCE}")] = "24h",
    is_open: Annotated[bool, typer.Option("--open", help="Only those that are open, whatever their age.")] = False,
) -> Exit:
    """List the holes that feeds have found in their data, and when they were repaired.

    Exit 4 if a node did not answer.
    """
    params = {"product": product, "node": node, "since": moment(since), "open": "1" if is_open else None}
    answers = read_answers(session, session.farm.lines("/v1/market/gaps", params))

    def say() -> None:
        from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

        rows = [
            (
                gap["node"], gap["product"] or "(all)", gap["kind"], _second(gap["found_at"]),
                _second(gap["repaired_at"]) or f"open for {gap['open_s']:,.0f} s", *_ids(gap),
            )
            for gap in answers.findings
        ]  # fmt: skip
        if rows:
            session.out.say(table(("node", "product", "kind", "from", "to", ">first", ">last"), rows, flexible="kind"))
        elif answers.done:
            session.out.say("No gap is open." if is_open else "No gap was found in that time, and none is open.")
        left_out = sum(done.get("left_out", 0) for done in answers.done.values())
        if left_out:
            session.out.say(f"{left_out:,} older ones are left out: ask for a shorter time, or for one product.")
        say_problems(session, answers)

    session.out.result({"gaps": answers.findings} | answers.summary(), say)
    return answers.exit(is_good=True)


def verify(
    session: Session,
    what: Annotated[str | None, typer.Argument(metavar="[PRODUCT|PATH]", help="Default: every product. A PATH needs no "
                                               "farm.", autocompletion=completion.products)] = None,
    node: Node = None,
    since: Since = None,
    product: Annotated[str | None, typer.Option(help="With a PATH: this product alone.")] = None,
    endpoint: Endpoint = None,
) -> Exit:  # fmt: skip
    """Check that QuestDB has what the capture holds: every trade once, as it came, no id missing, nothing damaged.

    On the nodes that hold the product, while their feeds run. Of a PATH (a recording, or the folder of a capture) the
    file alone is checked, or held against a QuestDB with --endpoint. Exit 0 if all is good, 1 if something differs.
    """
    path = _path(what)
    _refuse(path is not None and node is not None, "--node goes with a product: a PATH is on this machine.")
    _refuse(path is None and endpoint is not None, "--endpoint goes with a PATH.")
    _refuse(path is None and product is not None, "--product goes with a PATH; else write the product alone.")
    if path is not None:
        lines = run_program(["verify", *_options(product=product, since=moment(since), endpoint=endpoint), str(path)])
    else:
        session.again = "farmctl feed verify"
        body = _given(node=node, product=what, since=moment(since))
        lines = session.farm.post_for_lines("/v1/market/verify", body)
    answers = read_answers(session, lines)
    session.out.result({"products": answers.findings} | answers.summary(), lambda: _say_verdicts(session, answers))
    return answers.exit(is_good=all(done["is_good"] for done in answers.done.values()))


def replay(
    session: Session,
    path: Annotated[Path | None, typer.Argument(help="A recording or capture; needs --endpoint.")] = None,
    node: Node = None,
    product: ProductOption = None,
    since: Since = None,
    until: Until = None,
    endpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="With a PATH: endpoint.json of the QuestDB "
                                                  "that takes it.")] = None,
    speed: Annotated[str, typer.Option(help="With a PATH: 1 as it happened, 2 twice as fast, max.")] = MAX_SPEED,
) -> Exit:  # fmt: skip
    """Store again what the capture holds: repairs a table that was lost or damaged, and is harmless where all is well.

    On a node (or on all that hold the product) beside the running feed, or from a PATH into a QuestDB of this machine.
    """
    factor = _speed(speed)
    if path is not None:
        _refuse(node is not None, "--node goes without a PATH: the node replays its own capture.")
        _refuse(endpoint is None, "A PATH needs --endpoint: the endpoint.json of the QuestDB that is to take it.")
        given = _options(
            product=product, since=moment(since), until=moment(until), endpoint=endpoint, speed=f"{factor:g}"
        )
        lines = run_program(["replay", *given, str(path)])
    else:
        _refuse(endpoint is not None, "--endpoint goes with a PATH.")
        _refuse(factor > 0, "--speed goes with a PATH: a node replays as fast as it can.")
        _refuse(node is None and product is None, "Neither a node, a product nor a PATH is named.")
        session.again = "farmctl feed verify"
        body = _given(node=node, product=product, since=moment(since), until=moment(until))
        lines = session.farm.post_for_lines("/v1/market/replay", body)
    answers = read_answers(session, lines)

    def say() -> None:
        for name, done in sorted(answers.done.items()):
            rows = ", ".join(f"{count:,} {table}" for table, count in sorted(done["rows"].items())) or "no rows"
            begin = f"{name}: " if name else ""
            session.out.say(f"{begin}{rows} stored from {done['records']:,} records in {done['seconds']:.1f} s")
            for key, words in (("refused", "rows were refused"), ("damages", "stretches could not be read")):
                if done[key]:
                    session.out.say(f"{begin}{done[key]:,} {words}", "red")
            if not done["is_stored"]:
                session.out.say(f"{begin}QuestDB did not take everything in time", "red")
        say_problems(session, answers)

    session.out.result(answers.summary(), say)
    return answers.exit(is_good=all(done["is_good"] for done in answers.done.values()))


def compare(
    session: Session,
    a: Annotated[Path, typer.Argument(help="A recording, or the folder of a capture.")],
    b: Annotated[Path, typer.Argument(help="Another of the same products, perhaps from another feed.")],
    product: ProductOption = None,
    since: Since = None,
    until: Until = None,
) -> Exit:
    """Hold two recordings of the same market against each other: trades one by one, mid prices second by second.

    For two feeds of one venue, or two nodes. Needs no farm. Exit 0 if they agree, 1 if they differ.
    """
    options = _options(product=product, since=moment(since), until=moment(until))
    answers = read_answers(session, run_program(["compare", *options, str(a), str(b)]))
    done = answers.done[""]

    def say() -> None:
        from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

        columns = ("product", ">common", ">only a", ">only b", ">differing", ">seconds", ">mid, median bp", ">max", "")
        rows = [
            (
                one["product"], one["common"], one["only_a"], one["only_b"], one["differing"], one["seconds"],
                one["mid_median_bps"], one["mid_max_bps"], _result(one, "agree", "differ"),
            )
            for one in answers.findings
        ]  # fmt: skip
        session.out.say(f"A is {done['sources'][0]}: {a}\nB is {done['sources'][1]}: {b}")
        session.out.say(table(columns, rows))
        for one in answers.findings:
            if not one["common"]:
                session.out.say(f"{one['product']}: no trade is in both; they are not of the same time.", "yellow")
            _say_differences(session, one, "A", "B")
        for damage in done["damages"]:
            session.out.say(f"damaged: {damage}", "red")

    session.out.result({"agreements": answers.findings} | done, say)
    return Exit.DONE if done["is_good"] else Exit.ERROR


def _say_verdicts(session: Session, answers: Answers) -> None:
    from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

    columns = ("node", "product", ">captured", ">stored", ">lacking", ">differing", ">twice", ">missing", ">open", "")
    rows = [
        (
            one["node"], one["product"], one["captured"], one["stored"], one["lacking"], one["differing"], one["twice"],
            one["missing"], one["open_gaps"], _result(one, "good", "not good"),
        )
        for one in answers.findings
    ]  # fmt: skip
    if rows:
        session.out.say(table(columns, rows))
    for one in answers.findings:
        _say_differences(session, one, "captured", "stored")
        if one["holes"]:
            holes = ", ".join(f"{first} to {last}" for first, last in one["holes"])
            session.out.say(f"{one['product']}: never came: {holes}", "yellow")
    for name, done in sorted(answers.done.items()):
        for problem in (*done["problems"], *(f"damaged: {damage}" for damage in done["damages"])):
            session.out.say(f"{name + ': ' if name else ''}{problem}", "red")
        if done["is_good"]:
            session.out.say(f"{name + ': ' if name else ''}{done['records']:,} records, all good")
    say_problems(session, answers)


def _say_differences(session: Session, one: Mapping[str, Any], left: str, right: str) -> None:
    """The first few, named."""
    for difference in one["differences"]:
        words = f"{one['product']} trade {difference['trade_id']} {difference['what']}"
        sides = [
            f"{name} {difference[key]}" for name, key in ((left, "captured"), (right, "stored")) if difference[key]
        ]
        session.out.say(f"{words}: {'; '.join(sides)}", "yellow")


def _result(one: Mapping[str, Any], good: str, bad: str) -> str:
    return good if one["is_good"] else bad


def _second(text: str | None) -> str:
    """A time to the second, for a table."""
    return f"{text[:19]}Z" if text else ""


def _ids(gap: Mapping[str, Any]) -> tuple[object, object]:
    """First and last missing; a book that was in doubt has none."""
    return (gap["first_id"], gap["last_id"]) if gap["last_id"] > 0 else (None, None)


def _path(what: str | None) -> Path | None:
    """Whether a word names something on this machine. Raises InvalidRequest for a file that is not there."""
    if what is None:
        return None
    path = Path(what).expanduser()
    if path.exists():
        return path
    if "/" in what or what.startswith((".", "~")) or what.endswith(FILE_ENDINGS):
        raise InvalidRequest(f"There is no {what}.", remedy="Check the path. A product looks like BTC-USD.")
    return None


def _speed(text: str) -> float:
    """The factor; 0 for as fast as it goes."""
    if text == MAX_SPEED:
        return 0.0
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise InvalidRequest(f"--speed {text!r} is no speed.", remedy="Write 1, 2.5 or max.")
    return factor


def _refuse(is_wrong: bool, problem: str) -> None:
    if is_wrong:
        raise InvalidRequest(problem, remedy="See --help.")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _options(**values: Any) -> Iterable[str]:
    return [f"--{name}={value}" for name, value in values.items() if value is not None]
