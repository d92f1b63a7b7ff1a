"""An existing LangGraph project: what its `langgraph.json` says that the farm can use, and what it cannot.

Source of the format: the configuration file reference of the LangGraph command line. Keys that would change how an
agent behaves and that we do not have are refused by name, never ignored; keys about images mean nothing here and become
notes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest
from agentfarm.names import suggestion

_USED: Final = frozenset({"graphs", "dependencies", "env"})
_WITHOUT_MEANING: Final = {
    "$schema": "",
    "_INTERNAL_docker_tag": "",
    "python_version": "agents run on the Python of their node",
    "dockerfile_lines": "the farm builds no images",
    "base_image": "the farm builds no images",
    "image_distro": "the farm builds no images",
    "api_version": "the farm has a gateway of its own",
    "pip_config_file": "nodes use their own package index",
    "pip_installer": "nodes install with uv",
    "keep_pkg_tools": "nodes install with uv",
    "checkpointer": "checkpoints are kept by the farm",
}
_NOT_SUPPORTED: Final = frozenset(
    {"auth", "encryption", "http", "store", "ui", "ui_config", "webhooks", "node_version"}
)


@dataclass(frozen=True, slots=True)
class Project:
    """The usable part of a langgraph.json. `graphs` maps each id to `FILE.py:NAME`, relative to the root."""

    graphs: Mapping[str, str]
    requirements: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]


def read_project(root: Path) -> Project:
    """Read `root/langgraph.json`. Raises InvalidRequest with every problem in it."""
    file = root / "langgraph.json"
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidRequest(f"{file} is not a JSON object.")
    problems: list[str] = []
    notes: list[str] = []
    _check_keys(data, problems, notes)
    graphs = _graphs(data, root, problems)
    requirements = _requirements(data, root, problems)
    environment = _environment(data, problems, notes)
    if problems:
        listed = "; ".join(problems)
        raise InvalidRequest(f"{file}: {listed}.", remedy="Correct them, or write an agent.yaml.", problems=problems)
    return Project(graphs, tuple(dict.fromkeys(requirements)), environment, tuple(notes))


def _check_keys(data: Mapping[str, Any], problems: list[str], notes: list[str]) -> None:
    for key in data:
        if key in _WITHOUT_MEANING:
            if _WITHOUT_MEANING[key]:
                notes.append(f"langgraph.json: {key} is not used: {_WITHOUT_MEANING[key]}")
        elif key in _NOT_SUPPORTED:
            problems.append(f"the farm does not have {key!r} yet; remove it if the agent works without")
        elif key not in _USED:
            problems.append(f"there is no key {key!r}. {suggestion(key, _USED)}".rstrip())


def _graphs(data: Mapping[str, Any], root: Path, problems: list[str]) -> dict[str, str]:
    graphs = data.get("graphs")
    if not isinstance(graphs, dict) or not graphs:
        problems.append("`graphs` must map names to FILE.py:NAME")
        return {}
    entries: dict[str, str] = {}
    for key, value in graphs.items():
        path = value.get("path") if isinstance(value, dict) else value
        file, _, attribute = str(path).removeprefix("./").rpartition(":")
        if not file.endswith(".py") or not attribute.isidentifier():
            problems.append(f"graph {key!r}: {path!r} is not FILE.py:NAME")
        elif not (root / file).is_file() or not (root / file).resolve().is_relative_to(root):
            problems.append(f"graph {key!r}: there is no file {file} in the project")
        else:
            entries[str(key)] = f"{file}:{attribute}"
    return entries


def _requirements(data: Mapping[str, Any], root: Path, problems: list[str]) -> list[str]:
    """Packages named directly, and those that local dependencies name in turn."""
    requirements: list[str] = []
    for item in map(str, data.get("dependencies", ["."])):
        if not item.startswith("."):
            requirements.append(item)
            continue
        folder = (root / item).resolve()
        if not folder.is_dir() or not folder.is_relative_to(root):
            problems.append(f"dependency {item!r} is not a folder of the project")
            continue
        requirements.extend(_local_requirements(folder, problems))
    return requirements


def _local_requirements(folder: Path, problems: list[str]) -> list[str]:
    listed = folder / "requirements.txt"
    if listed.is_file():
        lines = (line.split(" #")[0].strip() for line in listed.read_text("utf-8").splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    project = folder / "pyproject.toml"
    if project.is_file():
        try:
            return [str(item) for item in tomllib.loads(project.read_text("utf-8"))["project"].get("dependencies", [])]
        except KeyError:
            return []
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{project} cannot be read: {error}")
    return []


def _environment(data: Mapping[str, Any], problems: list[str], notes: list[str]) -> dict[str, str]:
    env = data.get("env", {})
    if isinstance(env, dict):
        return {str(name): str(value) for name, value in env.items()}
    if isinstance(env, str):
        notes.append(f"langgraph.json: {env} is not sent: it may hold secrets. Set `environment:` in an agent.yaml")
        return {}
    problems.append("`env` must be an object or the name of a file")
    return {}
