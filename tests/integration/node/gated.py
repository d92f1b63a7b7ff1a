"""An agent that says which process runs it, and works until a gate opens."""

from __future__ import annotations

from pathlib import Path

GATED = """
import asyncio, os, pathlib
async def main(input):
    gate = pathlib.Path(input["gate"])
    with open(input["ran"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    while not gate.exists():
        await asyncio.sleep(0.02)
    return os.getpid()
"""


def gated(tmp_path: Path) -> dict[str, str]:
    """Its input."""
    return {"gate": str(tmp_path / "gate"), "ran": str(tmp_path / "ran")}
