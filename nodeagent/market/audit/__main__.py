"""`python -m nodeagent.market.audit VERB …`: the programs behind `farmctl feed gaps, verify, replay, compare`.

stdout is NDJSON: `progress` lines, findings, at last `done`, or `problem` with what was wrong. Exit: 0 good, 1 not good
or an error, 5 the world is in another state, 130 Ctrl-C. The node daemon starts them for a question of the
controller's, farmctl for a path on its own machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from agentfarm.errors import Conflict, FarmError
from nodeagent.market.audit.compare import compare
from nodeagent.market.audit.recordings import EVER_NS, Span
from nodeagent.market.audit.replay import replay
from nodeagent.market.audit.report import Teller, progress
from nodeagent.market.audit.tables import tell_gaps
from nodeagent.market.audit.verify import verify
from nodeagent.market.model.times import parse_time_ns
from nodeagent.market.store.endpoint import Endpoint

NICENESS: Final = 10
"""The feed and the agents come first."""
EXIT_NOT_GOOD, EXIT_CONFLICT, EXIT_DETACHED = 1, 5, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one question."""
    options = _options(arguments)
    os.nice(NICENESS)
    tell = Teller()
    try:
        return 0 if _answer(options, tell) else EXIT_NOT_GOOD
    except BrokenPipeError:  # the reader has gone
        sys.stderr.close()
        return EXIT_NOT_GOOD
    except KeyboardInterrupt:
        return EXIT_DETACHED
    except (FarmError, OSError) as error:
        failure = error if isinstance(error, FarmError) else FarmError(str(error))
        problem = {"code": failure.code, "detail": failure.problem, "remedy": failure.remedy}
        tell("problem", {"problem": problem})
        return EXIT_CONFLICT if isinstance(failure, Conflict) else EXIT_NOT_GOOD


def _answer(options: argparse.Namespace, tell: Teller) -> bool:
    span = Span(options.since, options.until)
    if options.verb == "compare":
        return compare(options.path, options.other, tell, product=options.product, span=span)
    endpoint = Endpoint.load(options.endpoint) if options.endpoint is not None else None
    if options.verb == "verify":
        return verify(options.path, endpoint, tell, product=options.product, since_ns=options.since)
    assert endpoint is not None  # the parser wants it
    if options.verb == "gaps":
        return tell_gaps(endpoint, tell, product=options.product, since_ns=options.since, is_open=options.open)
    return _replay(options, endpoint, span, tell)


def _replay(options: argparse.Namespace, endpoint: Endpoint, span: Span, tell: Teller) -> bool:
    result = asyncio.run(
        replay(
            options.path,
            endpoint,
            products=(options.product,) if options.product is not None else None,
            feed_products=tuple(options.known.split(",")) if options.known else (),
            span=span,
            speed=options.speed,
            on_record=lambda number, record, state: progress(tell, number, record.received_at_ns, state),
        )
    )
    is_good = result.is_stored and not result.refused and not result.damages
    tell("done", {"is_good": is_good, **asdict(result)})
    return is_good


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nodeagent.market.audit", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--product")
    shared.add_argument("--since", type=_moment, default=0, metavar="TIME", help="receipt, as 2026-03-01T12:00:00Z")
    shared.add_argument("--until", type=_moment, default=EVER_NS, metavar="TIME")
    for name in ("gaps", "verify", "replay", "compare"):
        verb = verbs.add_parser(name, parents=[shared])
        if name != "gaps":
            verb.add_argument("path", type=Path, help="a recording, or the folder of a capture")
        if name == "compare":
            verb.add_argument("other", type=Path)
            continue
        verb.add_argument("--endpoint", type=Path, required=name != "verify", help="endpoint.json of a QuestDB")
        if name == "gaps":
            verb.add_argument("--open", action="store_true", help="only those that are open, of whatever age")
        if name == "replay":
            verb.add_argument("--speed", type=float, default=0.0, help="1: as it happened; 0: as fast as it goes")
            verb.add_argument("--known", default="", help="products of the feed, comma-separated")
    return parser.parse_args(arguments)


def _moment(text: str) -> int:
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in UTC such as 2026-03-01T12:00:00Z") from error


if __name__ == "__main__":
    sys.exit(main())
