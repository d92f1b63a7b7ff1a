"""From a folder of files to an agent that runs: import the module, find the object, wrap it by its kind.

The object decides what is imported: LangGraph is touched only when the agent's own code has loaded it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, Protocol, TypeVar

from agentfarm.errors import InvalidRequest
from agentfarm.names import name_from, suggestion
from agentfarm.sdk.call import Call
from agentfarm.sdk.functions import FunctionAgent
from agentfarm.sdk.signatures import UnusableSignature
from agentfarm.sdk.tracebacks import agent_traceback

T = TypeVar("T")

ENTRY_NAMES: Final = ("graph", "agent", "main")
MODULE_FILE: Final = "agent.py"
_STRICT_VARIABLE: Final = "LANGGRAPH_STRICT_MSGPACK"
_STRICT_FLAG: Final = "STRICT_MSGPACK_ENABLED"
_STRICT_MODULES: Final = ("langgraph.checkpoint.serde._msgpack", "langgraph._internal._serde")
_FACTORY_NAME: Final = re.compile(r"(make|build|create|get)_\w+|make|build")


class LoadedAgent(Protocol):
    """An agent, imported and ready."""

    name: str

    @property
    def kind(self) -> Literal["graph", "runnable", "function"]: ...

    def schemas(self) -> dict[str, Any]:
        """JSON schemas under `input` and `output`; an empty one is not known."""
        ...

    async def run(self, call: Call) -> object:
        """The final output as JSON values. Raises what the agent raised, and LeaseLost."""
        ...


class AgentImportError(InvalidRequest):
    """The agent cannot be imported. `traceback` has the agent's own frames, or is empty where no code of it ran."""

    code = "import_failed"

    def __init__(self, problem: str, *, traceback: str = "", remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy, traceback=traceback)
        self.traceback = traceback


def load_agent(folder: Path, entry: str | None = None) -> LoadedAgent:
    """Import the agent in a folder.

    entry: `FILE.py` or `FILE.py:NAME`, relative to the folder; without a file `agent.py`, without a name the first
    of `graph`, `agent`, `main` that the module has. The folder becomes the first place to import from.
    Raises AgentImportError.
    """
    folder = folder.resolve()
    file, _, attribute = (entry or MODULE_FILE).partition(":")
    path = (folder / file).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise AgentImportError(f"The agent has no file {file!r}.", remedy="Name the right one as `entry` in its spec.")
    read_strictly()
    _forget_earlier()
    before = set(sys.modules)
    for place in reversed([folder, *_project_places(folder)]):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    try:
        module = _guarded(folder, lambda: _import(folder, path))
        loaded = _wrap(folder, module, file, attribute)
        _import_ahead(before)
        return loaded
    finally:
        _remember(folder, before)


def read_strictly() -> None:
    """Have LangGraph name the types of each graph's schema, which checkpoints may hold: see `payloads`.

    It looks at a variable when it is imported. Call it before, or before a graph is compiled.
    """
    os.environ[_STRICT_VARIABLE] = "true"
    for name in _STRICT_MODULES:
        if (module := sys.modules.get(name)) is not None:
            vars(module)[_STRICT_FLAG] = True


def own_module(name: str) -> ModuleType | None:
    """The module of that name, if it is part of an agent that was loaded here, or of the SDK that agents use.

    A module that the agent imports late, in a step, is imported now: a run goes on in a process where no step came yet.
    """
    module = sys.modules.get(name)
    if module is None and _has_file(name):
        with suppress(Exception):
            module = importlib.import_module(name)
    if module is None or name in _loaded or name.startswith("agentfarm.sdk."):
        return module
    file = getattr(module, "__file__", None) or ""
    is_own = "site-packages" not in file and any(Path(file).is_relative_to(folder) for folder in set(_loaded.values()))
    return module if is_own else None


def _has_file(name: str) -> bool:
    """Whether an agent that was loaded here has a file for a module of that name."""
    parts = name.split(".")
    places = {place for folder in set(_loaded.values()) for place in (folder, *_project_places(folder))}
    return all(part.isidentifier() for part in parts) and any(
        place.joinpath(*parts).with_suffix(".py").is_file() or place.joinpath(*parts, "__init__.py").is_file()
        for place in places
    )


def _wrap(folder: Path, module: ModuleType, file: str, attribute: str) -> LoadedAgent:
    name, value = _find(module, file, attribute)
    label = name_from(folder.name if file == MODULE_FILE else Path(file).stem) or "agent"
    if _is_factory(name, value):
        value = _guarded(folder, lambda: _made(value))
    try:
        if _is_langchain(value):
            from agentfarm.sdk.graphs import wrap  # noqa: PLC0415 - only for agents that use LangChain

            return _guarded(folder, lambda: wrap(label, value))
        if callable(value) and not inspect.isclass(value):
            return FunctionAgent(label, value)
    except UnusableSignature as error:
        raise AgentImportError(f"{file}:{name} cannot be an agent: {error}.") from error
    kind = f"the class {value.__name__}" if inspect.isclass(value) else f"of type {type(value).__name__}"
    raise AgentImportError(
        f"{file}:{name} is {kind}.", remedy="An agent is a LangGraph graph, a LangChain runnable or a function."
    )


def _find(module: ModuleType, file: str, attribute: str) -> tuple[str, Any]:
    names = (attribute,) if attribute else ENTRY_NAMES
    for name in names:
        if hasattr(module, name):
            return name, getattr(module, name)
    public = sorted(name for name in vars(module) if not name.startswith("_"))
    hint = suggestion(names[0], public)
    choices = " or ".join(f"`{name}`" for name in names)
    raise AgentImportError(
        f"{file} has no {choices}.", remedy=hint or f"Define it, or name another in `entry: {file}:NAME`."
    )


def _guarded(folder: Path, deed: Callable[[], T]) -> T:
    """Do what runs the agent's code at import. Any error becomes an AgentImportError."""
    try:
        return deed()
    except (AgentImportError, UnusableSignature):
        raise
    except SystemExit as error:
        raise AgentImportError(
            f"The agent called exit({error.code!r}) when it was imported.",
            traceback=agent_traceback(error, folder),
            remedy="Put what is for the command line under `if __name__ == '__main__':`.",
        ) from error
    except Exception as error:
        raise AgentImportError(
            f"The agent cannot be imported: {type(error).__name__}: {error}",
            traceback=agent_traceback(error, folder),
            remedy=_import_remedy(error),
        ) from error


def _import_remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return f"If {top!r} is a package, name it in a requirements.txt beside the agent."
    return ""


def _import(folder: Path, path: Path) -> ModuleType:
    """Import one file under the name that follows from its place, so that relative imports and siblings work."""
    importlib.invalidate_caches()
    dotted = ".".join(path.relative_to(folder).with_suffix("").parts)
    if "." in dotted and all(part.isidentifier() for part in dotted.split(".")):
        module = importlib.import_module(dotted)
        if Path(module.__file__ or "").resolve() == path:
            return module
    name = dotted if dotted.isidentifier() and dotted not in sys.modules else f"agentfarm_agent_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


_loaded: Final[dict[str, Path]] = {}
"""Modules that agents loaded here brought in, with the agent's folder."""


def _forget_earlier() -> None:
    """Remove modules that could have the same names: of agents loaded before, and of an older state of this one.

    A replica loads one agent and never needs this; tests and notebooks load many.
    """
    for name in _loaded:
        sys.modules.pop(name, None)
    gone = {str(place) for folder in _loaded.values() for place in (folder, *_project_places(folder))}
    sys.path[:] = [place for place in sys.path if place not in gone]
    _loaded.clear()


def _remember(folder: Path, before: set[str]) -> None:
    for name in sys.modules.keys() - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(folder) and "site-packages" not in file:
            _loaded[name] = folder


def _import_ahead(before: set[str]) -> None:
    """Import now what the agent will use at its first task. Replicas are forked from this process and share it."""
    from agentfarm import sdk  # noqa: PLC0415 - it imports this module

    used = {id(value) for name in sys.modules.keys() - before for value in vars(sys.modules[name]).values()}
    if id(sdk.llm) in used:
        from agentfarm.sdk.models import import_ahead  # noqa: PLC0415 - only for agents that use it

        import_ahead()
    if id(sdk.tsdb) in used and importlib.util.find_spec("psycopg2") is not None:
        importlib.import_module("agentfarm.sdk.market")
        importlib.import_module("psycopg2.extensions")


def _project_places(folder: Path) -> Iterator[Path]:
    """Where else a LangGraph project imports from: its local dependencies, and `src` in each."""
    config = folder / "langgraph.json"
    if not config.is_file():
        return
    try:
        listed = json.loads(config.read_bytes()).get("dependencies", ["."])
    except (ValueError, AttributeError):
        return
    for item in listed:
        place = (folder / str(item)).resolve()
        if str(item).startswith(".") and place.is_relative_to(folder) and place.is_dir():
            yield place
            if (place / "src").is_dir():
                yield place / "src"


def _is_langchain(value: object) -> bool:
    """Whether this is a graph or runnable. Asks only modules that are loaded already."""
    for module, kinds in (
        ("langgraph.graph.state", ("StateGraph",)),
        ("langgraph.pregel", ("Pregel",)),
        ("langchain_core.runnables", ("Runnable",)),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(value, tuple(getattr(loaded, kind) for kind in kinds)):
            return True
    return False


def _is_factory(name: str, value: object) -> bool:
    """Whether this function makes the agent: by the type it returns, its one parameter `config`, or its name."""
    if not inspect.isfunction(value):
        return False
    parameters = list(inspect.signature(value).parameters)
    returns = str(value.__annotations__.get("return", ""))
    returns_graph = re.search(r"\b(CompiledStateGraph|StateGraph|Pregel|Runnable)\b", returns) is not None
    return parameters in ([], ["config"]) and (
        returns_graph or parameters == ["config"] or _FACTORY_NAME.fullmatch(name) is not None
    )


def _made(factory: Any) -> object:
    made = factory({"configurable": {}}) if inspect.signature(factory).parameters else factory()
    if inspect.isawaitable(made) or hasattr(made, "__aenter__"):
        if inspect.iscoroutine(made):
            made.close()
        raise AgentImportError(
            f"{factory.__name__}() makes the agent asynchronously, which an import cannot wait for.",
            remedy="Make the graph when the module is imported, and open connections in its nodes.",
        )
    return made
