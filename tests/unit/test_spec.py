"""Agent specs: what people may write, what they are answered, and the one canonical text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentfarm.agents import units
from agentfarm.agents.notation import read_spec
from agentfarm.agents.spec import AgentSpec, Placement, Resources, Retries, Timeouts
from agentfarm.agents.view import SpecView
from agentfarm.errors import InvalidRequest

FULL = """\
name: market-brief
description: What it does
entry: agent.py:graph
replicas: 2
concurrency: 3
priority: -1
resources: {cpu: 0.5, memory: 2Gi, gpus: 1}
retries: {max_attempts: 5, backoff: 500ms, backoff_max: 2m}
timeouts: {queue: 1h30m, run: null, healthy: 30s, shutdown: 0}
placement: {strategy: pack, labels: {zone: 1}, capabilities: [questdb], products: [ETH-USD, BTC-USD]}
environment: {LEVEL: debug, SIZE: 5}
exclusive: true
"""


def problems_of(text: str, **options: str) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        read_spec(text, "agent.yaml", **options)
    problems = caught.value.data["problems"]
    assert isinstance(problems, list)
    assert all(problem.rstrip(".") in caught.value.problem for problem in problems)
    return problems


def test_every_key_is_read_with_its_unit() -> None:
    assert json.loads(read_spec(FULL).canonical_json()) == {
        "name": "market-brief",
        "description": "What it does",
        "entry": "agent.py:graph",
        "replicas": 2,
        "concurrency": 3,
        "priority": -1,
        "resources": {"cpu_millicores": 500, "memory_mib": 2048, "gpus": 1},
        "retries": {"max_attempts": 5, "backoff_s": 0.5, "backoff_max_s": 120.0},
        "timeouts": {"queue_s": 5400.0, "run_s": None, "healthy_s": 30.0, "shutdown_s": 0.0},
        "placement": {
            "strategy": "pack",
            "labels": {"zone": "1"},
            "capabilities": ["questdb"],
            "products": ["BTC-USD", "ETH-USD"],
        },
        "environment": {"LEVEL": "debug", "SIZE": "5"},
        "exclusive": True,
    }


def test_an_empty_text_is_all_defaults() -> None:
    assert read_spec("", name="echo") == AgentSpec(name="echo")
    assert read_spec("resources:\n", name="echo") == AgentSpec(name="echo")


def test_name_is_needed_from_somewhere() -> None:
    assert problems_of("replicas: 1") == ["agent.yaml: the key 'name' is missing"]


def test_all_problems_are_reported_at_once_with_their_lines() -> None:
    text = (
        "replcas: 2\nresources:\n  cpus: 1\n  memory: 128\nreplicas: -1\nreplicas: 3\ntimeouts: {run: 5}\nmemory: 5Mi"
    )
    problems = problems_of(text, name="x")
    assert [problem.split(": ")[0] for problem in problems] == [f"agent.yaml:{line}" for line in (1, 3, 4, 5, 6, 7, 8)]
    assert problems[0].endswith("there is no key 'replcas'. Did you mean 'replicas'?")
    assert problems[1].endswith("there is no key 'resources.cpus'. Did you mean 'cpu'?")
    assert "must be an amount of memory with its unit" in problems[2]
    assert problems[3].endswith("replicas must be a whole number from 0 to 10000, not '-1'")
    assert problems[4].endswith("replicas is written twice, first in line 5")
    assert "timeouts.run must be a duration with its unit" in problems[5]
    assert problems[6].endswith("Did you mean 'resources.memory'?")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "not YAML"),
        ("- x", "a spec is a mapping"),
        ("resources: 5", "resources must hold the keys cpu, memory, gpus"),
        ("name: A b", "ends with a letter or digit"),
        ("entry: ../x.py", "entry must be a Python file"),
        ("entry: /x.py", "entry must be a Python file"),
        ("exclusive: 1", "exclusive must be true or false"),
        ("environment: {A: true}", "put the value of A in quotes"),
        ("environment: {AGENTFARM_NODE: x}", "AGENTFARM_NODE: the node sets it"),
        ("environment: {'A-B': x}", "look at A-B"),
        ("environment: {A: [1]}", "environment must"),
        ('environment: {A: "\\ud800"}', "look at A"),
        ('placement: {labels: {A: "\\ud800"}}', "placement.labels must"),
        ('description: "\\ud800"', "description must"),
        ("timeouts: {run: 0s}", "more than 0"),
        ("timeouts: {run: 31d}", "at most 30d"),
        ("retries: {backoff: 5s, backoff_max: 1s}", "backoff_max must not be shorter than backoff"),
        ("placement: {strategy: sprawl}", "must be spread or pack, not 'sprawl'"),
        ("placement: {products: BTC-USD}", "must be a list of texts"),
        ("resources: {gpus: 1.5}", "whole number"),
        ("resources: {memory: 1Mi}", "at least 16Mi"),
        ("? [a]\n: 1", "a key must be one word"),
        ("replicas: .inf", "whole number"),
        ("name: a\n---\nname: b", "not YAML"),
        ("x" * 300_000, "longer than"),
    ],
)
def test_wrong_text_is_refused_saying_what_is_allowed(text: str, reason: str) -> None:
    assert reason in "\n".join(problems_of(text, name="x"))


def test_a_longer_backoff_raises_its_maximum_when_none_is_given() -> None:
    retries = read_spec("retries: {backoff: 5m}", name="x").retries
    assert (retries.backoff_s, retries.backoff_max_s) == (300.0, 300.0)


def test_canonical_json_with_wrong_keys_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest) as caught:
        AgentSpec.from_canonical('{"name":"a","resources":{"cpu":1},"replicas":"2"}')
    assert caught.value.data["problems"] == [
        "replicas: Input should be a valid integer",
        "resources.cpu: there is no such key. Did you mean 'cpu_millicores'?",
    ] or "cpu_millicores" in str(caught.value)


durations = st.integers(1, 30 * 86_400_000).map(lambda ms: ms / 1000)
words = st.text("abcdefghijklmnopqrstuvwxyz-_0123456789", min_size=1, max_size=12)
texts = st.text(st.characters(max_codepoint=0xFFFF, exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
variables = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: "AGENTFARM" not in name)
specs = st.builds(
    AgentSpec,
    name=st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,3}", fullmatch=True),
    description=texts,
    entry=st.none() | st.sampled_from(["agent.py", "src/app.py:graph"]),
    replicas=st.integers(0, 10_000),
    concurrency=st.integers(1, 1_024),
    priority=st.integers(-5, 5),
    resources=st.builds(
        Resources, cpu_millicores=st.integers(1, 10**6), memory_mib=st.integers(16, 10**6), gpus=st.integers(0, 64)
    ),
    retries=st.builds(
        lambda attempts, low, more: Retries(max_attempts=attempts, backoff_s=low, backoff_max_s=max(low, more)),
        st.integers(1, 100),
        durations,
        durations,
    ),
    timeouts=st.builds(
        Timeouts, queue_s=st.none() | durations, run_s=st.none() | durations, healthy_s=durations, shutdown_s=durations
    ),
    placement=st.builds(
        Placement,
        strategy=st.sampled_from(["spread", "pack"]),
        labels=st.dictionaries(words, texts, max_size=3),
        capabilities=st.lists(words, max_size=3).map(tuple),
        products=st.lists(words, max_size=3).map(tuple),
    ),
    environment=st.dictionaries(variables, texts, max_size=3),
    exclusive=st.booleans(),
)


@given(specs)
def test_canonical_text_reads_back_as_itself(spec: AgentSpec) -> None:
    text = spec.canonical_json()
    assert AgentSpec.from_canonical(text) == spec
    assert AgentSpec.from_canonical(text).canonical_json() == text


@given(specs)
def test_what_a_person_writes_is_what_the_farm_keeps(spec: AgentSpec) -> None:
    written = json.loads(spec.canonical_json())
    resources, retries, timeouts = written["resources"], written["retries"], written["timeouts"]
    written["resources"] = {
        "cpu": units.show_cpu(resources["cpu_millicores"]),
        "memory": units.show_memory(resources["memory_mib"]),
        "gpus": resources["gpus"],
    }
    written["retries"] = {
        "max_attempts": retries["max_attempts"],
        "backoff": units.show_duration(retries["backoff_s"]),
        "backoff_max": units.show_duration(retries["backoff_max_s"]),
    }
    written["timeouts"] = {
        key.removesuffix("_s"): None if value is None else units.show_duration(value) for key, value in timeouts.items()
    }
    if written["entry"] is None:
        del written["entry"]
    assert read_spec(json.dumps(written)) == spec  # JSON is YAML


@given(specs)
def test_the_node_sees_the_same_values(spec: AgentSpec) -> None:
    view = SpecView.from_json(spec.canonical_json())
    assert (view.name, view.entry, view.concurrency) == (spec.name, spec.entry, spec.concurrency)
    assert (view.cpu_millicores, view.memory_mib) == (spec.resources.cpu_millicores, spec.resources.memory_mib)
    assert (view.run_timeout_s, view.shutdown_timeout_s) == (spec.timeouts.run_s, spec.timeouts.shutdown_s)
    assert dict(view.environment) == spec.environment
    assert view.products == spec.placement.products


def test_a_node_reads_specs_of_other_releases() -> None:
    view = SpecView.from_json('{"name": "a", "later": {"key": 1}, "resources": {"cpu_millicores": 5}}')
    assert view == SpecView("a", cpu_millicores=5)
    with pytest.raises(InvalidRequest):
        SpecView.from_json('["a"]')


def test_the_nodes_reader_needs_no_validator() -> None:
    program = "import sys, agentfarm.agents.view, agentfarm.agents.bundle; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (units.cpu_millicores, "100m", 100),
        (units.cpu_millicores, 2, 2000),
        (units.cpu_millicores, "0.25", 250),
        (units.memory_mib, "128Mi", 128),
        (units.memory_mib, "1G", 954),
        (units.memory_mib, "1.5 GiB", 1536),
        (units.duration_s, "1h30m", 5400.0),
        (units.duration_s, "250ms", 0.25),
        (units.duration_s, 0, 0.0),
    ],
)
def test_units(read: object, value: object, expected: object) -> None:
    assert callable(read)
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (units.cpu_millicores, "100Mi"),
        (units.cpu_millicores, True),
        (units.cpu_millicores, -1),
        (units.memory_mib, 128),
        (units.memory_mib, "128"),
        (units.duration_s, 5),
        (units.duration_s, "5 minutes"),
        (units.duration_s, False),
        (units.duration_s, "-5s"),
    ],
)
def test_amounts_without_a_clear_unit_are_refused(read: object, value: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match="must be"):
        read(value)
