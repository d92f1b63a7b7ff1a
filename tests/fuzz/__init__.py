"""Coverage-guided fuzzing of what venues send: `python -m tests.fuzz --frames 1000000`.

```
seeds (our frames, recordings) ─▶ libFuzzer ─▶ target: frames ─▶ pipeline ─▶ rows that must be sound
                                     ▲──────── new edges of nodeagent.market ◀──┘
```

Needs `atheris`, which is not locked: 129 MB, and wheels for Linux on x86-64 with CPython 3.11 to 3.13 alone. Install it
with `.venv/bin/uv pip install atheris`. What it finds becomes a test in `tests/unit/market/venues/test_fuzz.py`.
"""
