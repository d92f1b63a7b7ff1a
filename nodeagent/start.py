"""Settings of a run: the file, the environment, and what the command line adds."""

from __future__ import annotations

import os
from pathlib import Path

from agentfarm.settings import read_settings
from nodeagent.settings import ENV_PREFIX, NodeSettings


def load_settings(config: Path | None, data_dir: Path | None) -> NodeSettings:
    """Raises InvalidRequest naming every problem."""
    env = dict(os.environ)
    if data_dir is not None:
        env[f"{ENV_PREFIX}_DATA_DIR"] = str(data_dir.resolve())
    return read_settings(NodeSettings, config, ENV_PREFIX, env)
