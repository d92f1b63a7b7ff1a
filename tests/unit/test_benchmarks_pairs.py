"""`python -m benchmarks.pairs`: what it reads, what it makes of it, and that nothing finished is run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import pairs as program
from benchmarks.pairs import BenchmarkFailed, Pair, compare, figures_of, is_cpu_time, kept_pairs, order, table


def pair(here: dict[str, float], other: dict[str, float], benchmark: str = "dispatch") -> Pair:
    return Pair(benchmark, ("--tasks", "1"), ("a", "b"), here, other)


def test_figures_are_the_numbers_of_the_last_line() -> None:
    figures = {"ms": 1.5, "tasks": 3, "is_quick": True, "why": "text", "peer": {"ms": 2}, "list": [1]}
    assert figures_of(f"a table 7\n{{}}\n{json.dumps(figures)}\n\n") == {"ms": 1.5, "tasks": 3, "peer.ms": 2}


@pytest.mark.parametrize("output", ["", "no figures\n", "[1]\n", '{"ms": 1'])
def test_output_without_a_last_line_of_json_is_a_failure(output: str) -> None:
    with pytest.raises(BenchmarkFailed):
        figures_of(output)


def test_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_medians() -> None:
    (row,) = compare([pair({"ms": h}, {"ms": o}) for h, o in ((1, 2), (10, 10), (30, 20), (8, 8), (9, 100))])
    assert (row.here, row.other, row.pairs) == (9, 10, 5)
    assert (row.ratio, row.ratio_min, row.ratio_max) == (1.0, 0.09, 1.5)


def test_figure_that_one_build_lacks_is_left_out() -> None:
    rows = compare([pair({"ms": 1, "new": 1}, {"ms": 2, "old": 1}), pair({"ms": 1, "new": 1}, {"ms": 2, "new": 2})])
    assert [(row.figure, row.pairs, row.ratio) for row in rows] == [("ms", 2, 0.5), ("new", 1, 0.5)]


def test_nothing_is_divided_by_nothing() -> None:
    rows = compare([pair({"pct": 0.1}, {"pct": 0.0})])
    assert [(row.ratio, row.ratio_min, row.ratio_max) for row in rows] == [(None, None, None)]
    assert "—" in table([pair({"pct": 0.1}, {"pct": 0.0})])[-1]


@pytest.mark.parametrize(
    ("benchmark", "figure", "is_one"),
    [
        ("dispatch", "cpu_ms_per_task", True),
        ("dispatch", "tasks_per_s", False),
        ("dispatch", "run_cpu_s", True),
        ("footprint", "daemon_idle_core_pct", True),
        ("ingest", "core_pct", True),
        ("ingest", "frames_per_s", True),
        ("ingest", "live_frames_per_s", False),
        ("latency", "p50_ms", False),
        ("recovery", "controller_start_cpu_s", True),
        ("recovery", "controller_start_s", False),
    ],
)
def test_cpu_time_is_marked(benchmark: str, figure: str, is_one: bool) -> None:
    assert is_cpu_time(benchmark, figure) is is_one
    (row,) = table([pair({figure: 1}, {figure: 1}, benchmark)])[2:]
    assert (" *" in row) is is_one


def test_who_begins_is_swapped_from_pair_to_pair() -> None:
    assert [order(number)[0] for number in (1, 2, 3, 4)] == ["here", "other", "here", "other"]


def test_kept_pairs_come_back_without_a_line_that_was_cut_off() -> None:
    one, two = pair({"ms": 1.0}, {"ms": 2.0}), pair({"ms": 3.0}, {"ms": 4.0}, "latency")
    text = "".join(json.dumps(asdict(each)) + "\n" for each in (one, two))
    assert kept_pairs(text) == [one, two]
    assert kept_pairs(text[:-20]) == [one]


class Runs:
    """Stands for the benchmarks: figures without running anything."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails_at = 0

    def __call__(self, checkout: Path, benchmark: str, arguments: Sequence[str]) -> dict[str, float]:
        self.calls.append((checkout.name, benchmark))
        if len(self.calls) == self.fails_at:
            raise BenchmarkFailed("exit code 1")
        return {"ms": 2.0 if checkout.name == "other" else 1.0}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    for name in ("here", "other"):
        (tmp_path / name / ".venv" / "bin").mkdir(parents=True)
        (tmp_path / name / ".venv" / "bin" / "python").touch()
        (tmp_path / name / "benchmarks").mkdir()
        for benchmark in ("latency", "dispatch"):
            (tmp_path / name / "benchmarks" / f"{benchmark}.py").touch()
    made = Runs()
    monkeypatch.setattr(program, "HERE", tmp_path / "here")
    monkeypatch.setattr(program, "run", made)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    return made


def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["pairs", "--other", str(tmp_path / "other"), *words])
    with pytest.raises(SystemExit) as end:
        program.main()
    return end.value.code


def test_finished_pairs_are_not_run_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("latency", "dispatch", "--pairs", "2", "--json", "--keep", str(tmp_path / "kept"))
    runs.fails_at = 3
    assert ended(monkeypatch, tmp_path, *words) == 1
    assert [place for place, _ in runs.calls] == ["here", "other", "here", "other", "here", "here", "other"]
    assert json.loads(capsys.readouterr().out)["failed"] == [f"pair 1, dispatch: {tmp_path / 'here'}: exit code 1"]
    runs.calls.clear()
    runs.fails_at = 0
    assert ended(monkeypatch, tmp_path, *words) == 0
    assert runs.calls == [("other", "dispatch"), ("here", "dispatch")]
    result = json.loads(capsys.readouterr().out)
    assert {name: (rows[0]["pairs"], rows[0]["ratio"]) for name, rows in result["benchmarks"].items()} == {
        "latency": (2, 0.5), "dispatch": (2, 0.5),
    }  # fmt: skip
    runs.calls.clear()
    assert ended(monkeypatch, tmp_path, *words, "--", "--tasks", "7") == 0
    assert len(runs.calls) == 8, "other arguments are other pairs"


def test_benchmark_that_is_not_in_both_is_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other" / "benchmarks" / "latency.py").unlink()
    assert ended(monkeypatch, tmp_path, "latency") == 2
    assert "there is no benchmark latency in" in capsys.readouterr().err
    assert runs.calls == []
