"""The environment zygote's program: `python -I -c BOOT RUNTIME_FOLDER --folder FOLDER [--preload MODULE ...]`."""

from __future__ import annotations

import argparse
import fcntl
import gc
import importlib
import os
import sys
import traceback
from pathlib import Path

from nodeagent.runner.replica.process import set_name, take_streams
from nodeagent.runner.zygote.messages import LOCK_NAME, LOG_NAME
from nodeagent.runner.zygote.roles import LOG_BYTES_MAX, EnvironmentZygote

ALWAYS = ("asyncio", "concurrent.futures.thread", "agentfarm.sdk", "nodeagent.runner.replica.runtime")


def main() -> None:
    """Import what agents of this environment share, freeze it, serve forks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--preload", nargs="*", default=[])
    options = parser.parse_args()
    lock = os.open(options.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: forked children do not hold it
    except OSError:
        return  # another one serves this folder already; the daemon will find it
    take_streams(options.folder / LOG_NAME, LOG_BYTES_MAX)
    set_name("af-zygote")
    gc.disable()
    for name in ALWAYS:
        importlib.import_module(name)
    sys.modules["agentfarm.sdk.loader"].read_strictly()  # before LangGraph is there
    for name in options.preload:
        _preload(name)
    if "langgraph.graph" in sys.modules:
        _preload("nodeagent.runner.zygote.warmup", call="run_graph")
    gc.collect()
    gc.freeze()
    zygote = EnvironmentZygote(options.folder)
    zygote.serve()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to finalize, and the daemon waits until it is gone


def _preload(name: str, call: str = "") -> None:
    """An environment may lack it, or hold a broken one: then agents that import it fail by themselves, and say so."""
    try:
        module = importlib.import_module(name)
        if call:
            getattr(module, call)()
    except Exception:
        print(f"preload of {name} failed:", file=sys.stderr)
        traceback.print_exc()
