"""`python -m tests.fuzz [--frames 1000000] [--source NAME …] [--corpus DIR]`: fuzz each source, tell what was found.

Exit: 0 nothing was found, 1 something was (its input is kept, and how to run it again is printed), 5 no `atheris` here.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import FRAMES, INPUT_BYTES_MAX, write_seeds

SECONDS_PER_INPUT_MAX = 20
EXIT_FOUND, EXIT_NO_FUZZER = 1, 5


def main() -> int:
    """Fuzz, one source after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="inputs in all, split over the sources")
    parser.add_argument("--source", action="append", choices=sorted(FRAMES), help="one source, or several")
    parser.add_argument("--corpus", type=Path, help="a folder to begin with and to keep what was learned")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not here. Install it with: .venv/bin/uv pip install atheris", file=sys.stderr)
        return EXIT_NO_FUZZER
    sources = options.source or sorted(FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder)
        found = [fuzz(source, options.frames // len(sources), corpus / source, options.seed) for source in sources]
    return EXIT_FOUND if any(found) else 0


def fuzz(source: str, inputs: int, corpus: Path, seed: int) -> bool:
    """Fuzz one source; whether anything was found."""
    corpus.mkdir(parents=True, exist_ok=True)
    begun = write_seeds(source, corpus)
    crashes = Path(f"fuzz-{source}")
    command = [sys.executable, "-m", "tests.fuzz.target", source, str(corpus), f"-runs={inputs}", f"-seed={seed}"]
    limits = [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={SECONDS_PER_INPUT_MAX}", "-print_final_stats=1"]
    done = subprocess.run(
        [*command, *limits, f"-artifact_prefix={crashes}-"],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stderr
    edges = [int(number) for number in re.findall(r"cov: (\d+)", said)]
    first = int(next(iter(re.findall(r"INITED\s+cov: (\d+)", said)), 0))
    executed = re.findall(r"number_of_executed_units:\s*(\d+)", said)
    print(
        f"{source}: {executed[-1] if executed else '?'} inputs, {begun} seeds, {first} edges by the seeds,"
        f" {max(edges, default=0) - first} new, {len(list(corpus.iterdir())) - begun} inputs learned,"
        f" {'nothing found' if done.returncode == 0 else 'FOUND:'}",
        flush=True,
    )
    if done.returncode != 0:
        print(said[-6000:])
        kept = re.findall(r"Test unit written to (\S+)", said)
        print(f"again: python -m tests.fuzz.target {source} --show {kept[-1] if kept else 'FILE'}")
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
