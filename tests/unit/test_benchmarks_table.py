"""`python -m benchmarks`: one table of all figures, and no failure goes unseen or stops the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as every
from benchmarks.__main__ import PROGRAMS, Done, Program, is_met, table

BENCHMARKS = Path(every.__file__).parent


def test_every_program_of_the_table_is_there() -> None:
    assert all((BENCHMARKS / f"{program.name}.py").exists() for program in PROGRAMS)


def test_figure_is_held_against_its_goal() -> None:
    program = Program("some", {"ms": ("<=", 3), "per_s": (">=", 10)})
    lines = table([Done(program, 1.0, {"ms": 4.0, "per_s": 11, "extra": 5})])
    assert [("missed" in line) for line in lines[1:]] == [True, False, False]
    assert "extra" in lines[3]


@pytest.mark.parametrize(
    ("value", "sign", "met"), [(3, "<=", True), (3.1, "<=", False), (3, ">=", True), (2, ">=", False)]
)
def test_goal_includes_its_bound(value: float, sign: str, met: bool) -> None:
    assert is_met(value, sign, 3) is met


def test_one_that_fails_is_reported_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    absent = Program("absent", {}, needs=tmp_path / "no-such-recording")
    monkeypatch.setattr(every, "PROGRAMS", (Program("does_not_exist", {}), absent))
    monkeypatch.setattr("sys.argv", ["benchmarks", "--json", str(tmp_path / "all.json")])
    with pytest.raises(SystemExit) as end:
        every.main()
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "skipped: no-such-recording is not here" in out
    assert json.loads(out.splitlines()[-1])["failed"] == ["does_not_exist"]
    assert json.loads((tmp_path / "all.json").read_text())["failed"] == ["does_not_exist"]
