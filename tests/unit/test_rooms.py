"""House rules that the files show: rooms by subject, with few modules, named by nouns."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("agentfarm", "backups", "controller", "farmctl", "nodeagent", "provisioning")
GENERATED: Final = ("agentfarm/wire/", "controller/journal/migrations/versions/")

MODULES_MAX: Final = 13
"""Modules in one folder, `__init__` and `__main__` not counted."""
LINES_MIN: Final = 40
LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 50

NOUNS_IN_ING: Final = {"encoding", "logging", "outgoing", "recording", "string", "testing"}
"""No gerunds: nouns, and what is outgoing."""

SMALL_FOR_A_REASON: Final[dict[str, str]] = {
    "controller/core/market/part.py": "one of the parts that the core's registry lists",
    "controller/core/parts.py": "the registry of the core's parts",
    "controller/core/tasks/part.py": "one of the parts that the core's registry lists",
    "controller/gateway/http/answers.py": "the one way to write answers, which loads no models",
    "controller/gateway/http/models.py": "what all bodies and views share",
    "controller/journal/migrations/env.py": "a script that Alembic runs by this name",
    "controller/link/services.py": "the registry of services of nodes",
    "nodeagent/core/clock.py": "the border to time, for every machine of the core",
    "nodeagent/core/problems.py": "errors that core, link and replicas of the daemon raise or catch",
    "nodeagent/market/session/pace.py": "a small machine that the clients of two protocols share",
    "nodeagent/market/store/prepare.py": "a program started by name",
    "nodeagent/replicas/unpack.py": "a program started by name",
    "nodeagent/runner/zygote/messages.py": "the words between daemon and zygote, which both import",
}
"""Modules under LINES_MIN lines, each with its reason."""


@functools.cache
def texts() -> dict[Path, str]:
    """Every module of the product, read once."""
    paths = (path for part in PARTS for path in sorted((ROOT / part).rglob("*.py")))
    return {
        path.relative_to(ROOT): path.read_text(encoding="utf-8")
        for path in paths
        if not str(path.relative_to(ROOT)).startswith(GENERATED)
    }


@functools.cache
def lines_of_named() -> dict[Path, int]:
    """The lines of all modules but the faces of packages and the programs' doors."""
    return {path: text.count("\n") for path, text in texts().items() if path.stem not in ("__init__", "__main__")}


def test_no_room_is_crowded() -> None:
    rooms = Counter(path.parent for path in lines_of_named())
    crowded = [f"{room}: {count} modules" for room, count in rooms.items() if count > MODULES_MAX]
    assert not crowded, "\n".join(crowded)


def test_modules_are_nouns() -> None:
    gerunds = [
        str(path) for path in lines_of_named()
        if re.search(r"ing(_|$)", path.stem) and path.stem not in NOUNS_IN_ING
    ]  # fmt: skip
    assert not gerunds, "\n".join(gerunds)


def test_no_neighbours_differ_by_a_suffix_only() -> None:
    """`outbox` beside `outbox_file`, `task` beside `tasks`: a reader must open both to know which is which."""
    rooms: defaultdict[Path, list[str]] = defaultdict(list)
    for path in lines_of_named():
        rooms[path.parent].append(path.stem)
    alike = [
        f"{room}: {one} beside {other}"
        for room, names in rooms.items()
        for one in names
        for other in names
        if other == f"{one}s" or other.startswith(f"{one}_")
    ]
    assert not alike, "\n".join(alike)


def test_modules_have_the_size_of_one_idea() -> None:
    wrong = [
        f"{path}: {lines} lines"
        for path, lines in lines_of_named().items()
        if lines > LINES_MAX or (lines < LINES_MIN and str(path) not in SMALL_FOR_A_REASON)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_reason_is_still_needed() -> None:
    needless = [name for name in SMALL_FOR_A_REASON if lines_of_named().get(Path(name), LINES_MIN) >= LINES_MIN]
    assert not needless, "\n".join(needless)


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}: {lines} lines"
        for path, text in texts().items()
        if text.count("\n") > FUNCTION_LINES_MAX
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(long)
