"""No orphan tasks: a task is started by agentfarm/service.py, for an owner that awaits it and hears of its death."""

from __future__ import annotations

import ast

from tests.unit.test_imports import modules

PARTS = ("agentfarm", "backups", "controller", "farmctl", "nodeagent", "provisioning")
STARTERS = frozenset({"create_task", "ensure_future"})

EXCEPTIONS = {
    "agentfarm/service.py": "the owner itself",
    "nodeagent/runner/replica/runtime.py": "standard library only: it runs where no module of ours is",
}
"""File and reason. Who adds one says why a Service, Tasks or first_of of agentfarm/service.py does not do."""


def test_tasks_are_started_by_their_owner_alone() -> None:
    starts = {
        f"{path}:{node.lineno}"
        for path, tree in modules(*PARTS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in STARTERS
        and str(path) not in EXCEPTIONS
    }  # fmt: skip
    assert not starts, "\n".join(sorted(starts))


def test_exceptions_are_needed() -> None:
    text = {str(path): ast.unparse(tree) for path, tree in modules(*PARTS)}
    assert [name for name in EXCEPTIONS if not any(start in text.get(name, "") for start in STARTERS)] == []
