"""Plain functions as agents: loading, binding of inputs, streaming, errors as their authors want to see them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentfarm.sdk import AgentImportError, Reject, load_agent
from agentfarm.sdk.tracebacks import agent_traceback
from tests.unit.sdk.running import agent, call


async def answer(folder: Path, source: str, value: object = None, entry: str = "agent.py") -> object:
    return await agent(folder, source, entry).run(call(value))


async def test_an_async_function_gets_the_whole_input(tmp_path: Path) -> None:
    source = "async def main(input):\n    return {'got': input}"
    assert await answer(tmp_path, source, [1, 2]) == {"got": [1, 2]}


async def test_a_sync_function_runs_in_a_thread_with_its_context(tmp_path: Path) -> None:
    source = """
        import threading
        from agentfarm.sdk import context, emit
        def main(input):
            emit({"attempt": context().attempt})
            return [context().task_id, threading.get_ident()]
    """
    pieces: list[object] = []
    task_id, thread = await agent(tmp_path, source).run(call(attempt=3, emit=pieces.append))  # type: ignore[misc]
    assert task_id == 7
    assert thread != threading.get_ident()
    assert pieces == [{"attempt": 3}]


QUESTION = "def main(question: str, limit: int = 5, *, ctx):\n    return [question, limit, ctx.task_id]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [({"question": "why"}, ["why", 5, 7]), ({"question": "why", "limit": 2}, ["why", 2, 7])],
)
async def test_keys_are_bound_to_parameters(tmp_path: Path, value: object, expected: object) -> None:
    assert await answer(tmp_path, QUESTION, value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "it lacks 'question'"),
        (None, "must be an object with 'question', 'limit' (optional), not null"),
        ("why", "must be an object"),
        ({"question": 1}, "'question' does not fit: must be string, not an integer"),
        ({"question": "x", "limit": True}, "must be integer, not a boolean"),
        ({"question": "x", "top": 1}, "it has 'top', which main() does not take"),
    ],
)
async def test_an_input_that_does_not_fit_is_rejected_for_good(tmp_path: Path, value: object, reason: str) -> None:
    with pytest.raises(Reject) as caught:
        await answer(tmp_path, QUESTION, value)
    assert reason in str(caught.value)


async def test_richer_types_are_made_by_pydantic(tmp_path: Path) -> None:
    source = """
        from datetime import date
        from pydantic import BaseModel
        class Order(BaseModel):
            product: str
            on: date
        def main(order: Order, tags: list[str] | None = None):
            return {"order": order, "year": order.on.year, "tags": tags}
    """
    loaded = agent(tmp_path, source)
    expected = {"order": {"product": "BTC-USD", "on": "2026-01-02"}, "year": 2026, "tags": None}
    assert await loaded.run(call(
        {"order": {"product": "BTC-USD", "on": "2026-01-02"}})) == expected  # fmt: skip
    with pytest.raises(Reject, match="on: "):
        await loaded.run(call({"order": {"product": "BTC-USD", "on": "never"}}))


async def test_a_single_model_parameter_takes_the_whole_input(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        @dataclass
        class Order:
            product: str
            size: float
        def main(order: Order) -> Order:
            return order
    """
    loaded = agent(tmp_path, source)
    assert await loaded.run(call({"product": "BTC-USD", "size": 2})) == {"product": "BTC-USD", "size": 2.0}
    assert loaded.schemas()["input"]["required"] == ["product", "size"]
    assert loaded.schemas()["output"]["properties"]["product"] == {"title": "Product", "type": "string"}


def test_schemas_of_parameters(tmp_path: Path) -> None:
    assert agent(tmp_path, QUESTION).schemas()["input"] == {
        "type": "object",
        "properties": {"question": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["question"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("source", "pieces", "output"),
    [
        ("async def main(input):\n    for n in range(3):\n        yield n", [0, 1, 2], 2),
        ("def main(input):\n    yield 'a'\n    yield 'b'\n    return {'all': 'ab'}", ["a", "b"], {"all": "ab"}),
        ("def main(input):\n    yield 'a'", ["a"], "a"),
        ("async def main(input):\n    return\n    yield", [], None),
    ],
)
async def test_yielded_pieces_are_shown_and_the_last_or_returned_is_the_answer(
    tmp_path: Path, source: str, pieces: list[object], output: object
) -> None:
    seen: list[object] = []
    assert await agent(tmp_path, source).run(call(emit=seen.append)) == output
    assert seen == pieces


async def test_cancelling_a_generator_closes_it(tmp_path: Path) -> None:
    source = """
        import asyncio, pathlib
        async def main(input):
            try:
                yield "began"
                await asyncio.Event().wait()
            finally:
                pathlib.Path(input).write_text("closed")
    """
    began = asyncio.Event()
    loaded = agent(tmp_path, source)
    marker = tmp_path / "marker"
    task = asyncio.create_task(loaded.run(call(str(marker), emit=lambda piece: began.set())))  # type: ignore[arg-type]
    await asyncio.wait_for(began.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert marker.read_text() == "closed"


async def test_concurrent_calls_each_see_their_own_context(tmp_path: Path) -> None:
    source = """
        import asyncio
        from agentfarm.sdk import context, emit
        async def main(input):
            for _ in range(3):
                await asyncio.sleep(0)
                emit(context().task_id)
            return context().task_id
    """
    loaded = agent(tmp_path, source)
    seen: dict[int, list[object]] = {task: [] for task in range(1, 20)}
    outputs = await asyncio.gather(*(loaded.run(call(task=task, emit=seen[task].append)) for task in seen))
    assert outputs == list(seen)
    assert all(pieces == [task] * 3 for task, pieces in seen.items())


async def test_callable_objects_and_lambdas_are_agents(tmp_path: Path) -> None:
    source = """
        class Adder:
            def __init__(self, by): self.by = by
            async def __call__(self, number: int): return number + self.by
        agent = Adder(5)
        short = lambda input: input * 2
    """
    assert await answer(tmp_path, source, {"number": 1}) == 6
    assert await load_agent(tmp_path, "agent.py:short").run(call(4)) == 8


async def test_the_first_of_graph_agent_main_is_the_entry(tmp_path: Path) -> None:
    source = "def main(input): return 'main'\ndef agent(input): return 'agent'\ndef other(input): return 'other'"
    assert await answer(tmp_path, source) == "agent"
    assert await load_agent(tmp_path, "agent.py:other").run(call()) == "other"


async def test_helper_modules_are_the_agents_own_even_after_another_agent(tmp_path: Path) -> None:
    for name in ("one", "two"):
        loaded = agent(
            tmp_path / name, "import tools\ndef main(input): return tools.NAME", tools__py=f"NAME = '{name}'"
        )
        assert await loaded.run(call()) == name


async def test_relative_imports_work_in_nested_entries(tmp_path: Path) -> None:
    source = "from .parts import VALUE\ndef main(input): return VALUE"
    (tmp_path / "src" / "app").mkdir(parents=True)
    (tmp_path / "src" / "app" / "parts.py").write_text("VALUE = 5")
    assert await answer(tmp_path, source, entry="src/app/run.py") == 5


def test_an_agent_named_like_a_loaded_module_does_not_replace_it(tmp_path: Path) -> None:
    loaded = agent(tmp_path, "def main(input): return 1", entry="pytest.py")
    assert sys.modules["pytest"] is pytest
    assert loaded.name == "pytest"


# ---------------------------------------------------------------- what goes wrong


def refused(folder: Path, source: str, entry: str = "agent.py") -> AgentImportError:
    with pytest.raises(AgentImportError) as caught:
        agent(folder, source, entry)
    return caught.value


def test_a_failing_import_shows_the_agents_own_lines_only(tmp_path: Path) -> None:
    error = refused(
        tmp_path, "import json\ndef read():\n    return json.loads('{')\nVALUE = read()\ndef main(input): ..."
    )
    assert "JSONDecodeError" in str(error)
    assert 'File "agent.py", line 4, in <module>' in error.traceback
    assert 'File "agent.py", line 3, in read' in error.traceback
    assert "importlib" not in error.traceback
    assert "agentfarm" not in error.traceback
    assert str(tmp_path) not in error.traceback


def test_a_syntax_error_shows_its_place(tmp_path: Path) -> None:
    error = refused(tmp_path, "def main(:\n    pass")
    assert 'File "agent.py", line 1' in error.traceback


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_like_it\n", "name it in a requirements.txt"),
        ("import sys\nsys.exit(3)\n", "called exit(3) when it was imported"),
        ("grpah = 1\n", "agent.py has no `graph` or `agent` or `main`. Did you mean 'grpah'?"),
        ("class main: pass\n", "is the class main"),
        ("main = 5\n", "of type int"),
        ("def main(a, b, /): pass\n", "positional-only"),
        ("async def main(config): pass\n", "asynchronously"),
    ],
)
def test_what_cannot_be_an_agent_is_refused_with_a_reason(tmp_path: Path, source: str, reason: str) -> None:
    assert reason in str(refused(tmp_path, source))


def test_entries_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out.py").write_text("main = print")
    (tmp_path / "in").mkdir()
    for entry in ("../out.py", "nothing.py", "/etc/passwd"):
        with pytest.raises(AgentImportError, match="has no file"):
            load_agent(tmp_path / "in", entry)


async def test_what_the_agent_raises_comes_through_with_a_trimmed_traceback(tmp_path: Path) -> None:
    source = """
        def deep(): raise ValueError("no such product")
        def main(input):
            try:
                deep()
            except ValueError as error:
                raise RuntimeError("gave up") from error
    """
    with pytest.raises(RuntimeError, match="gave up") as caught:
        await answer(tmp_path, source)
    text = agent_traceback(caught.value, tmp_path)
    assert text.count("agent.py") == 3
    assert "ValueError: no such product" in text
    assert text.endswith("RuntimeError: gave up")
    assert "asyncio" not in text


async def failure(folder: Path, source: str, value: object) -> BaseException:
    """What the agent raises, with the frames a replica would see."""
    task = asyncio.create_task(agent(folder, source).run(call(value)))
    await asyncio.wait([task])
    error = task.exception()
    assert error is not None
    return error


async def test_a_rejected_input_has_no_traceback_of_ours(tmp_path: Path) -> None:
    error = await failure(tmp_path, QUESTION, {})
    assert agent_traceback(error, tmp_path).startswith("agentfarm.sdk.run.Reject: The input does not fit")


async def test_an_error_outside_the_agents_lines_shows_where_it_came_from(tmp_path: Path) -> None:
    error = await failure(tmp_path, "from fractions import Fraction\nmain = lambda input: Fraction(input)", "x")
    text = agent_traceback(error, tmp_path / "elsewhere")
    assert "fractions.py" in text
    assert "agentfarm" not in text


async def test_an_answer_without_a_json_form_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"output\.items\[1\]\.raw is bytes"):
        await answer(tmp_path, "def main(input): return {'items': [1, {'raw': b'x'}]}")


LOADS = """
import sys, tempfile
from pathlib import Path
before = set(sys.modules)
import agentfarm.sdk
folder = Path(tempfile.mkdtemp())
(folder / "agent.py").write_text("from agentfarm.sdk import %s\\nasync def main(question: str): return question")
agentfarm.sdk.load_agent(folder)
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
"""


def loaded_for(name: str) -> set[str]:
    """The packages outside the standard library that an agent using this name of the SDK brings in."""
    done = subprocess.run([sys.executable, "-c", LOADS % name], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_sdk_loads_only_the_standard_library_and_what_the_agent_uses() -> None:
    assert loaded_for("emit, context, Reject") == {"agent", "agentfarm"}
    assert loaded_for("tsdb") == {"agent", "agentfarm", "psycopg2"}
    assert "langchain_core" in loaded_for("llm")
