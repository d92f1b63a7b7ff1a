"""House rules that the imports show: arrows point one way, big dependencies stay behind one door."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("agentfarm", "backups", "controller", "farmctl", "nodeagent")

FORBIDDEN = {
    "agentfarm": ("controller", "nodeagent", "farmctl"),
    "controller": ("nodeagent", "farmctl"),
    "nodeagent": ("controller", "farmctl"),
    "farmctl": ("controller", "nodeagent"),
    "backups": ("controller", "nodeagent", "farmctl"),
}

CORE_MAY_IMPORT = {
    "__future__", "agentfarm.errors", "collections", "collections.abc", "controller.core", "dataclasses", "decimal",
    "enum", "heapq", "itertools", "math", "random", "typing",
}  # fmt: skip

ONE_DOOR = {
    "langgraph": ("agentfarm/sdk/", "nodeagent/zygote/", "examples/"),
    "langchain_core": ("agentfarm/sdk/", "nodeagent/zygote/", "examples/"),
    "questdb": ("nodeagent/feed/writer",),
    "sqlalchemy": ("controller/journal/",),
    "alembic": ("controller/journal/",),
    "fastapi": ("controller/gateway/",),
    "grpc": ("controller/link/", "nodeagent/", "agentfarm/wire/"),
}


def modules(*parts: str) -> Iterator[tuple[Path, ast.Module]]:
    for part in parts:
        for path in sorted((ROOT / part).rglob("*.py")):
            yield path.relative_to(ROOT), parsed(path)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Read once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


@pytest.mark.parametrize("part", PARTS)
def test_no_part_imports_one_it_must_not_know(part: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(part)
        for name, line in imported(tree)
        if name.split(".")[0] in FORBIDDEN[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_core_calls_nobody() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("controller/core")
        for name, line in imported(tree)
        if name not in CORE_MAY_IMPORT and not name.startswith("controller.core.")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(ONE_DOOR))
def test_big_dependency_stays_behind_its_door(library: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(*PARTS)
        for name, line in imported(tree)
        if name.split(".")[0] == library and not str(path).startswith(ONE_DOOR[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_reads_the_environment_but_the_edges() -> None:
    allowed = (
        "agentfarm/settings.py", "agentfarm/sdk/", "agentfarm/exchange/", "controller/main.py", "farmctl/",
        "nodeagent/child.py", "nodeagent/environments", "nodeagent/feed/service/", "nodeagent/main.py",
        "nodeagent/questdb/", "nodeagent/replica/", "nodeagent/start.py", "nodeagent/zygote/",
    )  # fmt: skip
    wrong = [
        f"{path}:{node.lineno} reads os.environ"
        for path, tree in modules(*PARTS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and not str(path).startswith(allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_daemon_starts_without_agent_and_server_libraries() -> None:
    heavy = ("langchain_core", "langgraph", "numpy", "questdb", "sqlalchemy", "fastapi", "pandas", "pyarrow")
    code = f"import sys, nodeagent.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
