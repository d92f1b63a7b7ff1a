"""Each shared number, pattern and word has one owner; those who cannot import it, and the documents, say the same."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentfarm import limits
from agentfarm.agents.notation import read_spec
from agentfarm.agents.spec import AgentSpec
from agentfarm.agents.view import SpecView
from agentfarm.names import is_name, is_product_name
from controller.core.policy import Policy
from controller.gateway.agents.deployments import policy_of
from controller.link.server import LinkSettings
from controller.settings import ControllerSettings
from nodeagent.core.lease import Lease
from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.launch import Launch
from tests.unit.node.clock import Clock
from tests.unit.test_imports import ROOT, modules

OWNED = frozenset(
    name for name, value in vars(limits).items() if name.isupper() and isinstance(value, int | float | str)
)


class Names(BaseModel):
    node: str = Field(pattern=limits.NAME_PATTERN, max_length=limits.NAME_CHARS_MAX)
    product: str = Field(pattern=limits.PRODUCT_PATTERN, max_length=limits.PRODUCT_NAME_CHARS_MAX)


def is_taken(field: str, text: str) -> bool:
    good = {"node": "n", "product": "P"}
    try:
        Names(**good | {field: text})
    except ValueError:
        return False
    return True


LETTERS = "aZ0-_.:/ \nä"


@given(st.text(LETTERS, max_size=70))
def test_border_and_code_agree_on_names(text: str) -> None:
    assert is_taken("node", text) == is_name(text)
    assert is_taken("product", text) == is_product_name(text)


def test_core_node_and_spec_have_the_same_defaults() -> None:
    spec = AgentSpec(name="a")
    assert policy_of(spec) == Policy()
    view = SpecView.from_json('{"name": "a"}')
    assert view == SpecView.from_json(spec.canonical_json())


def test_runner_says_what_the_controller_hears() -> None:
    assert frames.GIVEN_BACK == limits.GIVEN_BACK


def test_runner_has_the_defaults_of_a_spec() -> None:
    """It imports nothing of ours, so it states them."""
    launch = {field.name: field.default for field in fields(Launch)}
    assert launch["concurrency"] == limits.CONCURRENCY
    assert launch["memory_mib"] == limits.MEMORY_MIB
    assert launch["payload_bytes_max"] == limits.PAYLOAD_MAX_BYTES


def test_both_ends_of_the_link_have_the_same_times() -> None:
    """A node goes by the default until its first Welcome."""
    settings, link = ControllerSettings(), LinkSettings()
    assert (link.beat_interval_s, link.stop_exclusive_after_s) == (
        settings.beat_interval_s, settings.stop_exclusive_after_s,
    )  # fmt: skip
    assert Lease(Clock(), lambda: None).stop_after_s == settings.stop_exclusive_after_s
    assert settings.beat_interval_s == limits.BEAT_INTERVAL_S
    assert settings.stop_exclusive_after_s == limits.STOP_EXCLUSIVE_AFTER_S


def test_no_other_module_states_what_is_owned() -> None:
    """By name: a second PRIORITY_MAX, say. The runner imports nothing of ours."""
    owned = OWNED - {"PRIORITY", "CONCURRENCY", "REPLICAS", "ATTEMPTS"}
    stated = [
        f"{path}:{node.lineno} {target.id}"
        for path, tree in modules("agentfarm", "controller", "farmctl", "nodeagent")
        if str(path) not in ("agentfarm/limits.py", "nodeagent/runner/protocol/frames.py")
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id in owned
    ]
    assert not stated, "\n".join(stated)


def test_documents_state_the_defaults() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    example = re.search(r"```yaml\n(name: market-brief.*?)```", text, re.DOTALL)
    assert example is not None
    written = yaml.safe_load(example[1])
    spec = read_spec(example[1])
    assert spec.timeouts.run_s == limits.RUN_TIMEOUT_S
    assert spec.timeouts.healthy_s == limits.HEALTHY_TIMEOUT_S
    assert spec.timeouts.shutdown_s == limits.SHUTDOWN_TIMEOUT_S
    assert (spec.resources.cpu_millicores, spec.resources.memory_mib) == (limits.CPU_MILLICORES, limits.MEMORY_MIB)
    assert (spec.retries.max_attempts, spec.retries.backoff_s) == (limits.ATTEMPTS, limits.BACKOFF_S)
    assert spec.retries.backoff_max_s == limits.BACKOFF_MAX_S
    assert written["priority"] == limits.PRIORITY
    line = next(line for line in text.splitlines() if line.startswith("priority:"))
    assert f"{limits.PRIORITY_MIN} … {limits.PRIORITY_MAX}" in line
