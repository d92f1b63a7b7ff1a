"""House rules that the imports show: arrows point one way, big dependencies stay behind one door."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("agentfarm", "backups", "benchmarks", "controller", "farmctl", "nodeagent", "provisioning")
PROGRAMS_OF = ("controller", "nodeagent", "farmctl", "benchmarks", "provisioning")

MAY_IMPORT = {
    "agentfarm": (),
    "backups": ("agentfarm",),
    "benchmarks": ("agentfarm", "controller", "nodeagent"),
    "controller": ("agentfarm", "backups"),
    "farmctl": ("agentfarm",),
    "nodeagent": ("agentfarm", "backups"),
    "provisioning": ("agentfarm",),
}
"""The other parts that each part may import. Whatever is not named here is forbidden."""

ROOMS_MAY_IMPORT = {
    "nodeagent/market": ("agentfarm", "nodeagent.market"),
    "nodeagent/market/exchange": ("agentfarm", "nodeagent.market.exchange"),
    "nodeagent/market/pipeline": (
        "agentfarm.backoff",
        "agentfarm.errors",
        "nodeagent.market.books",
        "nodeagent.market.model",
        "nodeagent.market.pipeline",
    ),
    "nodeagent/core": (
        "agentfarm.agents.view",
        "agentfarm.backoff",
        "agentfarm.errors",
        "agentfarm.limits",
        "agentfarm.wire",
        "nodeagent.core",
        "nodeagent.runner.protocol.frames",
    ),
    "nodeagent/runner": ("agentfarm.sdk", "nodeagent.runner"),
    "nodeagent/runner/protocol": ("nodeagent.runner.protocol",),
    "controller/explain": ("agentfarm", "controller.core", "controller.explain"),
    "controller/gateway/http": (
        "agentfarm", "controller.core.model", "controller.gateway.http", "controller.gateway.scope",
    ),
    "controller/gateway/agents": (
        "agentfarm", "controller.core", "controller.explain", "controller.gateway.agents", "controller.gateway.http",
        "controller.gateway.prefixes", "controller.gateway.scope",
    ),
}  # fmt: skip
"""Modules of the farm that each room may import: a library, or a floor that must not look up."""

MARKET_IS_FOR = ("nodeagent/market/", "nodeagent/services/", "benchmarks/")
"""Who may import nodeagent.market: it is a library of the node's market service. The daemon never meets it."""

STARTED_BY_NAME = {
    "benchmarks": {
        "benchmarks.ingest_blocked", "controller.main", "nodeagent.main", "nodeagent.market.exchange",
        "nodeagent.market.feed",
    },
    "controller": set(),
    "farmctl": {
        "controller.main", "nodeagent.main", "nodeagent.market.audit", "nodeagent.market.audit.inspect",
        "nodeagent.market.exchange", "nodeagent.market.store.prepare",
    },
    "nodeagent": {
        "nodeagent.link.renewal", "nodeagent.market.audit", "nodeagent.market.audit.inspect", "nodeagent.market.feed",
        "nodeagent.market.store.fetch", "nodeagent.market.venues.binance.source",
        "nodeagent.market.venues.coinbase_advanced.source", "nodeagent.market.venues.coinbase_exchange.source",
        "nodeagent.market.venues.recording", "nodeagent.replicas.unpack", "nodeagent.runner.replica.runtime",
        "nodeagent.runner.zygote", "nodeagent.runner.zygote.warmup", "nodeagent.start",
    },
    "provisioning": set(),
}  # fmt: skip
"""A program or module that is started by its name is an arrow too, though no import shows it."""

NODE_CORE_MAY_IMPORT = {"json"}
"""Beside what the controller's core may import: frames that are rare are JSON."""

CORE_MAY_IMPORT = {
    "__future__", "agentfarm.backoff", "agentfarm.errors", "agentfarm.limits", "agentfarm.names", "collections",
    "collections.abc", "controller.core", "dataclasses", "decimal", "enum", "heapq", "itertools", "math", "operator",
    "random", "typing",
}  # fmt: skip

ONE_DOOR = {
    "langgraph": ("agentfarm/sdk/", "nodeagent/runner/zygote/", "benchmarks/agents/"),
    "langchain_core": ("agentfarm/sdk/", "nodeagent/runner/zygote/"),
    "psutil": ("benchmarks/", "controller/postgres/", "farmctl/dev/"),
    "questdb": ("nodeagent/market/writer/",),
    "sqlalchemy": ("controller/journal/",),
    "alembic": ("controller/journal/migrations/",),
    "fastapi": ("controller/gateway/",),
    "grpc": ("controller/link/", "nodeagent/", "agentfarm/wire/", "benchmarks/"),
}


def modules(*parts: str) -> Iterator[tuple[Path, ast.Module]]:
    for part in parts:
        for path in sorted((ROOT / part).rglob("*.py")):
            yield path.relative_to(ROOT), parsed(path)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Read once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(tree: ast.Module, *, only_at_start: bool = False) -> tuple[tuple[str, int], ...]:
    """(module, line) of each import; with `only_at_start`, of those that run when the module is imported."""
    names: list[tuple[str, int]] = []
    for node in _at_start(tree) if only_at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append((node.module, node.lineno))
    return tuple(names)


def _at_start(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below this one that runs when the module is imported: no function's body, nothing for types alone."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_for_types:
            yield child
            yield from _at_start(child)


def is_within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("part", PARTS)
def test_no_part_imports_one_it_must_not_know(part: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(part)
        for name, line in imported(tree)
        if name.split(".")[0] in PARTS and not is_within(name, (part, *MAY_IMPORT[part]))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(ROOMS_MAY_IMPORT))
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(room)
        for name, line in imported(tree)
        if name.split(".")[0] in PARTS and not is_within(name, ROOMS_MAY_IMPORT[room])
    ]
    assert not wrong, "\n".join(wrong)


def test_market_is_imported_by_its_own_service_alone() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(*PARTS)
        for name, line in imported(tree)
        if is_within(name, ("nodeagent.market",)) and not str(path).startswith(MARKET_IS_FOR)
    ]
    assert not wrong, "\n".join(wrong)


def test_services_of_a_node_enter_by_one_door() -> None:
    """The registry makes them; the daemon's settings hold theirs; nobody else knows which there are."""
    rooms = tuple(
        f"nodeagent.services.{path.stem}"
        for path in (ROOT / "nodeagent" / "services").iterdir()
        if path.name[0] not in "_." and path.stem not in ("registry", "service")
    )
    assert "nodeagent.services.market" in rooms
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(*PARTS)
        for name, line in imported(tree)
        if is_within(name, rooms) and not str(path).startswith("nodeagent/services/")
        and not (str(path) == "nodeagent/settings.py" and name.endswith(".settings"))
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_words_of_the_wire_stay_in_the_link_of_the_controller() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("controller")
        for name, line in imported(tree)
        if is_within(name, ("agentfarm.wire",)) and not str(path).startswith("controller/link/")
    ]
    assert not wrong, "\n".join(wrong)


def test_what_attempts_ask_needs_the_standard_library_alone() -> None:
    """The SDK uses it in agents' own environments."""
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("agentfarm/calls")
        for name, line in imported(tree)
        if name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


def test_runner_needs_the_standard_library_alone() -> None:
    """It runs in the agent's environment, which may hold no library of ours. The SDK is imported late."""
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("nodeagent/runner")
        for name, line in imported(tree, only_at_start=path.name != "warmup.py")
        if name.split(".")[0] not in sys.stdlib_module_names and not is_within(name, ("nodeagent.runner",))
        and not (path.name == "warmup.py" and is_within(name, ("agentfarm.sdk", "langgraph", "typing_extensions")))
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_core_calls_no_other_part() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("controller/core")
        for name, line in imported(tree)
        if name not in CORE_MAY_IMPORT and not name.startswith("controller.core.")
    ]
    assert not wrong, "\n".join(wrong)


def test_order_of_a_turn_does_no_io() -> None:
    allowed = CORE_MAY_IMPORT | {"controller.faults", "controller.metrics"}
    wrong = [
        f"{path} imports {name}"
        for path in (Path("controller/turns.py"), Path("controller/faults.py"), Path("controller/metrics.py"))
        for name, _ in imported(parsed(ROOT / path))
        if name not in allowed and not name.startswith("controller.core.")
    ]
    assert not wrong, "\n".join(wrong)


def test_core_of_the_node_does_no_io() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules("nodeagent/core")
        for name, line in imported(tree)
        if name.split(".")[0] not in PARTS and name not in CORE_MAY_IMPORT | NODE_CORE_MAY_IMPORT
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", PROGRAMS_OF)
def test_programs_started_by_name_are_listed_and_exist(part: str) -> None:
    """A string that names a module of ours (`a.b` or `a.b:Class`) starts or loads it; names of loggers do not."""
    names = {name for _, tree in modules(part) for name in texts(tree) if is_module(name)}
    assert names == STARTED_BY_NAME[part]


def texts(tree: ast.Module) -> Iterator[str]:
    loggers = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("get_logger")
        for argument in call.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in loggers:
            yield node.value.partition(":")[0]


def is_module(text: str) -> bool:
    if not re.fullmatch(r"(controller|nodeagent|farmctl|benchmarks)(\.[a-z_0-9]+)+", text):
        return False
    path = ROOT / text.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("library", sorted(ONE_DOOR))
def test_big_dependency_stays_behind_its_door(library: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules(*PARTS)
        for name, line in imported(tree)
        if name.split(".")[0] == library and not str(path).startswith(ONE_DOOR[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_edges_read_the_environment() -> None:
    allowed = (
        "agentfarm/settings.py", "agentfarm/sdk/", "benchmarks/", "controller/main.py", "farmctl/",
        "nodeagent/main.py", "nodeagent/market/exchange/", "nodeagent/market/feed/",
        "nodeagent/market/store/", "nodeagent/market/audit/", "nodeagent/replicas/environments.py",
        "nodeagent/runner/", "nodeagent/start.py",
    )  # fmt: skip
    wrong = [
        f"{path}:{node.lineno} reads os.environ"
        for path, tree in modules(*PARTS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and not str(path).startswith(allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_daemon_starts_without_agent_and_server_libraries() -> None:
    heavy = (
        "langchain_core",
        "langgraph",
        "numpy",
        "questdb",
        "sqlalchemy",
        "fastapi",
        "pandas",
        "pyarrow",
        "pathspec",
    )
    code = f"import sys, nodeagent.main, nodeagent.daemon; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
