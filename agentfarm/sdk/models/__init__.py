"""Chat models for agents: `llm(role)` behind one door.

    role ─▶ engine (scripted, or an OpenAI-compatible endpoint) ─▶ model (LangChain's interface, or a plain one)

The environment of the replica chooses: `AGENTFARM_LLM_URL`, `AGENTFARM_LLM_KEY_FILE`, `AGENTFARM_LLM_ROLES`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentfarm.errors import InvalidRequest
from agentfarm.names import suggestion
from agentfarm.sdk.models.chat import Engine


def chat_model(role: str, settings: Mapping[str, Any]) -> Any:
    """The model for a role, of LangChain's kind where langchain-core is installed."""
    engine, model = engine_for(role, os.environ)
    if importlib.util.find_spec("langchain_core") is not None:
        from agentfarm.sdk.models.langchain import FarmChatModel  # noqa: PLC0415 - langchain-core is not everywhere

        return FarmChatModel(engine=engine, role=role, model=model, settings=dict(settings))
    from agentfarm.sdk.models.plain import PlainChatModel  # noqa: PLC0415 - the other branch

    return PlainChatModel(engine, model, dict(settings))


def engine_for(role: str, environment: Mapping[str, str]) -> tuple[Engine, str]:
    """What answers for a role, and the name of the model there. Raises InvalidRequest for an unknown role."""
    url = environment.get("AGENTFARM_LLM_URL", "")
    if not url:
        from agentfarm.sdk.models.scripted import ScriptedEngine  # noqa: PLC0415 - one of two

        return ScriptedEngine(), "scripted"
    from agentfarm.sdk.models.endpoint import EndpointEngine  # noqa: PLC0415 - one of two

    key_file = environment.get("AGENTFARM_LLM_KEY_FILE", "")
    return EndpointEngine(url, Path(key_file) if key_file else None), _model(role, environment)


def import_ahead() -> None:
    """Import what `chat_model` will, so that replicas forked from this process share it."""
    if importlib.util.find_spec("langchain_core") is not None:
        importlib.import_module("agentfarm.sdk.models.langchain")
        importlib.import_module("langchain_core.tracers.run_collector")
    is_remote = bool(os.environ.get("AGENTFARM_LLM_URL")) and importlib.util.find_spec("httpx") is not None
    importlib.import_module("httpx" if is_remote else "agentfarm.sdk.models.scripted")
    if is_remote:
        importlib.import_module("agentfarm.sdk.models.endpoint")


def _model(role: str, environment: Mapping[str, str]) -> str:
    text = environment.get("AGENTFARM_LLM_ROLES", "")
    if not text:
        return role
    try:
        roles = json.loads(text)
        models = {str(name): str(model) for name, model in roles.items()}
    except (ValueError, AttributeError) as error:
        raise InvalidRequest("AGENTFARM_LLM_ROLES is not a JSON object of roles and models.") from error
    if role not in models:
        raise InvalidRequest(
            f"There is no model for the role {role!r}.",
            remedy=suggestion(role, models) or f"There are: {', '.join(sorted(models))}.",
        )
    return models[role]
