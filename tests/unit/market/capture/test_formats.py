"""Recordings are known by their content, whatever they are packed in; what is unknown is said clearly."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from agentfarm.errors import InvalidRequest
from nodeagent.market.audit.inspect import inspect_file, main, render
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.model.records import RecordKind
from tests.unit.market import recordings as rec
from tests.unit.market.frames import BINANCE_FRAMES, EXCHANGE_FRAMES

PACKED = {".raw": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    ("name", "format_name", "source"),
    [
        (rec.ADVANCED_TICKER, "ingest_time lines", "coinbase-advanced"),
        (rec.EXCHANGE_2021, "cryptofeed 2 recording", "coinbase-exchange"),
        (rec.EXCHANGE_2026, "frames, one a line", "coinbase-exchange"),
        (rec.EXCHANGE_L3, "pyalgotrade L3 recording", "coinbase-exchange"),
    ],
)
def test_a_recording_is_known_by_its_content(
    recordings: Path, tmp_path: Path, name: str, format_name: str, source: str, packing: str
) -> None:
    content = (recordings / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    path = tmp_path / "without-a-telling-name"
    path.write_bytes(PACKED[packing](content))
    recording = open_recording(path)
    assert (recording.format, recording.source) == (format_name, source)
    frames = sum(record.kind is RecordKind.RECEIVED for record in recording.records)
    assert frames == sum(1 for _ in rec.plain_frames(recordings / name)) - (7109 if name == rec.EXCHANGE_L3 else 0)


def test_binance_frames_are_known(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b"\n".join(BINANCE_FRAMES))
    (report,) = inspect_file(path).products
    assert (report.product, report.trades, report.last_trade_id) == ("BTCUSDT", 2, 101)


def test_a_packed_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = b"\n".join(EXCHANGE_FRAMES * 200)
    packed = gzip.compress(whole)
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) // 2])
    report = inspect_file(path)
    assert 0 < report.frames < len(EXCHANGE_FRAMES) * 200


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"hello\n", b"\x1f\x8b\x00\x00", b"\x00" * 100, b'{"a": 1}\n', b"[1]\n"]
)
def test_what_is_no_recording_is_said_clearly(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest) as refusal:
        open_recording(path)
    assert str(path) in str(refusal.value)


def test_inspect_speaks_to_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b"\n".join([*EXCHANGE_FRAMES, b'{"type":"l2upd']))
    assert main([str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    bitcoin = report["products"][0]
    assert list(bitcoin) == [
        "product", "frames", "trades", "first_trade_id", "last_trade_id", "missing_trades", "duplicates", "rejected",
        "gaps", "crossed", "best_bid", "best_ask", "bid_levels", "ask_levels",
    ]  # fmt: skip
    assert (bitcoin["trades"], bitcoin["best_bid"], bitcoin["best_ask"]) == (2, "63510", "63514.6")
    assert report["unreadable"] == 1
    assert main([str(path)]) == 0
    table = capsys.readouterr().out
    assert "BTC-USD" in table
    assert "unreadable frames: 1" in table
    assert render(inspect_file(path)) + "\n" == table


def test_inspect_of_a_missing_file_fails_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nodeagent.market.audit.inspect", str(tmp_path / "nothing")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=rec.ROOT, timeout=60)
    assert run.returncode == 1
    assert run.stderr.startswith("error: There is no file")
    assert "Traceback" not in run.stderr
