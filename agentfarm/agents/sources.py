"""Agents in a folder: which there are, what each is called, and which files belong to it.

Convention over configuration. `question_answering.py` is an agent `question-answering`; a folder with `agent.py` or
`agent.yaml` is an agent named like the folder; a project with `langgraph.json` has one agent per graph; any other
folder is searched one level deep for these. It reads files and runs none: the node imports them.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentfarm.agents.notation import read_spec
from agentfarm.agents.spec import AgentSpec
from agentfarm.errors import InvalidRequest
from agentfarm.names import check_name, name_from

ENTRY_NAMES: Final = ("graph", "agent", "main")
"""The attribute of a module that is the agent, when the spec names none: the first that is there."""

MODULE_FILE: Final = "agent.py"
SPEC_FILES: Final = ("agent.yaml", "agent.yml")
PROJECT_FILE: Final = "langgraph.json"
REQUIREMENTS_FILE: Final = "requirements.txt"
_NOT_AGENTS: Final = re.compile(r"(?:_.*|\..*|test_.*|.*_test|conftest|setup|noxfile|tests?|docs?|node_modules|venv)")


@dataclass(frozen=True, slots=True)
class AgentSource:
    """An agent as found on disk, ready for `agentfarm.agents.bundle.pack`."""

    spec: AgentSpec
    root: Path
    only: tuple[str, ...] = ()
    extra: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What its author should know: settings that the farm does not use."""

    @property
    def name(self) -> str:
        return self.spec.name


def find_agents(path: Path) -> list[AgentSource]:
    """Every agent under a path, by name.

    Raises InvalidRequest when there is none, when two have one name, or when a spec or module cannot be read.
    """
    agents = _agents_at(path)
    if not agents and path.is_dir():
        agents = [agent for child in sorted(path.iterdir()) for agent in _agents_in(child)]
    if not agents:
        raise InvalidRequest(
            f"There is no agent in {path}.",
            remedy=f"An agent is NAME.py with {_or(ENTRY_NAMES)}, or a folder with {MODULE_FILE}, {SPEC_FILES[0]} or "
            f"{PROJECT_FILE}.",
        )
    _check_unique(agents)
    return sorted(agents, key=lambda agent: agent.name)


def _agents_at(path: Path) -> list[AgentSource]:
    """The agents of this path itself; none when it is a folder of several."""
    if path.is_file() and path.suffix == ".py":
        return [_single_file(path)]
    if path.is_file() and path.name == PROJECT_FILE:
        return _project(path.parent)
    if path.is_file():
        raise InvalidRequest(f"{path} is not an agent.", remedy=f"Give a .py file, a folder, or a {PROJECT_FILE}.")
    if not path.is_dir():
        raise InvalidRequest(f"There is no file or folder {path}.")
    has_spec = any((path / name).is_file() for name in SPEC_FILES)
    if (path / PROJECT_FILE).is_file() and not has_spec:
        return _project(path)
    if has_spec or (path / MODULE_FILE).is_file():
        return [_folder(path)]
    return []


def _agents_in(child: Path) -> Iterable[AgentSource]:
    """The agents of one child of a searched folder: a file that defines one, or a folder that is one."""
    if _NOT_AGENTS.fullmatch(child.stem):
        return []
    if child.is_dir():
        return _agents_at(child)
    if child.suffix == ".py" and _defines_entry(child):
        return [_single_file(child)]
    return []


def _single_file(path: Path) -> AgentSource:
    root = path.resolve().parent
    spec_file = next((file for ending in ("yaml", "yml") if (file := path.with_suffix(f".{ending}")).is_file()), None)
    spec = _spec_of(spec_file, path, path.stem)
    entry = spec.entry or path.name
    if entry.partition(":")[0] != path.name:
        raise InvalidRequest(
            f"{spec_file}: the entry {entry!r} is not in {path.name}, the only file of this agent.",
            remedy=f"Write {path.name}:NAME, or make a folder with {MODULE_FILE}.",
        )
    _check_shadowing(path)
    requirements = _inline_requirements(path)
    extra = {REQUIREMENTS_FILE: _lines(requirements)} if requirements else {}
    return AgentSource(spec.model_copy(update={"entry": entry}), root, (path.name,), extra)


def _folder(path: Path) -> AgentSource:
    root = path.resolve()
    spec_file = next((path / name for name in SPEC_FILES if (path / name).is_file()), None)
    spec = _spec_of(spec_file, path, root.name)
    module = root / (spec.entry or MODULE_FILE).partition(":")[0]
    if not module.is_file():
        problem = f"{spec_file} names the entry {spec.entry!r}" if spec.entry else f"{spec_file} names no entry"
        raise InvalidRequest(
            f"{problem}, and there is no file {module.relative_to(root)} in {path}.",
            remedy=f"Add the file, or set `entry: FILE.py:NAME` in {spec_file}.",
        )
    for file in sorted(root.glob("*.py")):
        _check_shadowing(file)
    return AgentSource(spec.model_copy(update={"entry": spec.entry or MODULE_FILE}), root)


def _project(root: Path) -> list[AgentSource]:
    """The agents of a LangGraph project, one for each of its graphs."""
    from agentfarm.agents.langgraph_project import read_project  # noqa: PLC0415 - few projects are of this kind

    root = root.resolve()
    project = read_project(root)
    requirements = [] if (root / REQUIREMENTS_FILE).is_file() else list(project.requirements)
    extra = {REQUIREMENTS_FILE: _lines(requirements)} if requirements else {}
    only_one = len(project.graphs) == 1
    return [
        AgentSource(
            AgentSpec(
                name=check_name(name_from(root.name if only_one and key == "agent" else key)),
                entry=entry,
                environment=dict(project.environment),
            ),
            root,
            extra=extra,
            notes=project.notes,
        )
        for key, entry in project.graphs.items()
    ]


def _spec_of(spec_file: Path | None, path: Path, stem: str) -> AgentSpec:
    name = name_from(stem)
    text = ""
    if spec_file is not None:
        try:
            text = spec_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{spec_file} cannot be read: {error}.") from error
    elif not name:
        check_name(stem)
    return read_spec(text, str(spec_file or path), name=name or None)


def _defines_entry(path: Path) -> bool:
    """Whether the module binds one of the entry names at its top level. Read, not run."""
    names = set(ENTRY_NAMES)
    for node in _top_level(_parse(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound = {name}
            case ast.Assign(targets=targets):
                bound = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                bound = {name}
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound = {alias.asname or alias.name for alias in aliases}
            case _:
                bound = set()
        if bound & names:
            return True
    return False


def _top_level(module: ast.Module) -> Iterable[ast.stmt]:
    """Statements run at import: also those inside if, try and with."""
    waiting: list[ast.AST] = [module]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                waiting.append(child)
            elif isinstance(child, ast.stmt):
                yield child


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise InvalidRequest(f"{path}:{error.lineno}: {error.msg}.", remedy="Correct the module.") from error
    except ValueError as error:
        raise InvalidRequest(f"{path} is not Python: {error}.") from error


_SCRIPT_BLOCK: Final = re.compile(r"(?m)^# /// script$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///$")
"""The metadata block of a single file. Source: PEP 723, which gives this expression."""


def _inline_requirements(path: Path) -> list[str]:
    """What a single file needs, from its script metadata (PEP 723)."""
    match = _SCRIPT_BLOCK.search(path.read_text("utf-8", "replace"))
    if match is None:
        return []
    text = "".join(line[2:] if line.startswith("# ") else line[1:] for line in match["content"].splitlines(True))
    try:
        listed = tomllib.loads(text).get("dependencies", [])
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{path}: its `# /// script` block is not TOML: {error}.") from error
    return [str(item) for item in listed]


def _check_shadowing(path: Path) -> None:
    if path.stem in sys.stdlib_module_names:
        raise InvalidRequest(
            f"{path} would hide Python's own module {path.stem!r} from everything the agent imports.",
            remedy="Rename the file.",
        )


def _check_unique(agents: Iterable[AgentSource]) -> None:
    seen: dict[str, AgentSource] = {}
    for agent in agents:
        if agent.name in seen:
            first, second = (f"{one.root}/{one.spec.entry}" for one in (seen[agent.name], agent))
            raise InvalidRequest(
                f"Two agents are named {agent.name!r}: {first} and {second}.",
                remedy="Set `name:` in the spec of one of them.",
            )
        seen[agent.name] = agent


def _lines(items: Iterable[str]) -> bytes:
    return "".join(f"{item}\n" for item in items).encode()


def _or(words: Iterable[str]) -> str:
    *first, last = (f"`{word}`" for word in words)
    return f"{', '.join(first)} or {last}"
