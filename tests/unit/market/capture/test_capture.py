"""The capture: what goes in comes out, whatever is cut off, flipped or killed."""

from __future__ import annotations

import errno
import math
import os
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.market.capture import writer as capture
from nodeagent.market.capture.formats import open_recording
from nodeagent.market.capture.layout import CHUNK_HEAD_BYTES, SEGMENT_HEAD_BYTES, ChunkHead
from nodeagent.market.capture.reader import Damage, read_capture, segments
from nodeagent.market.capture.writer import CaptureSettings, CaptureWriter
from nodeagent.market.model.records import Position, Record, RecordKind, record_of, segment_of
from nodeagent.market.model.times import NS
from tests.unit.market import recordings as rec

HOUR_NS = 3600 * NS
START_NS = 1_786_309_200 * NS


def records(count: int, *, start_ns: int = START_NS, step_ns: int = NS // 50) -> list[Record]:
    """Records like a feed's: alike, but not equal."""
    chance = random.Random(7)
    made = []
    for number in range(count):
        payload = b'{"channel":"l2_data","sequence_num":%d,"price":"%d.%02d"}' % (
            number,
            chance.randint(60_000, 61_000),
            chance.randint(0, 99),
        )
        at_ns = start_ns + number * step_ns + chance.randint(0, 999)
        made.append(Record(RecordKind.RECEIVED, 1, at_ns, at_ns - START_NS + 5, payload))
    return made


def content(found: list[Record]) -> list[tuple[object, ...]]:
    return [(r.kind, r.connection_id, r.received_at_ns, r.monotonic_ns, r.payload) for r in found]


def write(directory: Path, made: list[Record], *, flush_every: int = 20, close: bool = True) -> list[Position]:
    writer = CaptureWriter(directory)
    positions = []
    for number, record in enumerate(made):
        positions.append(writer.append(record))
        if number % flush_every == flush_every - 1:
            writer.flush()
    if close:
        writer.close()
    return positions


def test_what_goes_in_comes_out_with_its_positions(tmp_path: Path) -> None:
    made = [*records(500), Record(RecordKind.REST, 0, START_NS + 11 * NS, 3, b"\x00" * 70_000)]
    positions = write(tmp_path, made)
    found = list(read_capture(tmp_path))
    assert content(found) == content(made)
    assert [record.position for record in found] == positions
    assert positions == sorted(set(positions))
    assert not list(tmp_path.glob("*.tail"))


def test_reading_goes_on_after_any_position(tmp_path: Path) -> None:
    made = records(300)
    positions = write(tmp_path, made)
    for index in (0, 1, 19, 20, 150, 298, 299):
        assert content(list(read_capture(tmp_path, positions[index]))) == content(made[index + 1 :])


def test_a_writer_that_died_lost_nothing(tmp_path: Path) -> None:
    """Neither what was flushed nor what was only appended; positions stay what they were, and the next writer goes
    on.
    """
    made = records(55)
    positions = write(tmp_path, made, close=False)
    assert content(list(read_capture(tmp_path))) == content(made), "a reader beside a living writer sees all of it"
    more = records(10, start_ns=START_NS + 5 * NS)
    later = write(tmp_path, more)
    found = list(read_capture(tmp_path))
    assert content(found) == content(made + more)
    assert [record.position for record in found] == positions + later
    assert segment_of(later[0]) == segment_of(positions[0]) + 1


def test_files_change_at_the_full_hour_and_at_their_size(tmp_path: Path) -> None:
    made = records(40, start_ns=START_NS + HOUR_NS - NS // 3)
    write(tmp_path, made)
    names = [segment.path.name for segment in segments(tmp_path)]
    assert names == ["0000000001_2026-08-09T21.afcap", "0000000002_2026-08-09T22.afcap"]
    assert content(list(read_capture(tmp_path))) == content(made)
    small = tmp_path / "small"
    writer = CaptureWriter(small, CaptureSettings(segment_max_bytes=2000))
    for record in records(400):
        writer.append(record)
        writer.flush()
    writer.close()
    assert len(segments(small)) > 3
    assert content(list(read_capture(small))) == content(records(400))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_reads_up_to_its_last_whole_chunk(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    made = records(100)
    write(directory, made)
    (segment,) = segments(directory)
    length = data.draw(st.integers(0, segment.size_bytes))
    os.truncate(segment.path, length)
    found = list(read_capture(directory))
    assert content(found) == content(made[: len(found)])
    assert len(found) >= (length - 400) * 100 // segment.size_bytes - 40
    write(directory, records(5, start_ns=START_NS + 9 * NS))  # the next writer starts whatever it finds
    again = list(read_capture(directory))
    assert content(again) == content(found + records(5, start_ns=START_NS + 9 * NS))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_noticed_and_never_changes_a_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("flip")
    made = records(100)
    positions = write(directory, made)
    (segment,) = segments(directory)
    damaged = bytearray(segment.path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    segment.path.write_bytes(damaged)
    damages: list[Damage] = []
    found = list(read_capture(directory, on_damage=damages.append))
    expected = dict(zip(positions, content(made), strict=True))
    for record, values in zip(found, content(found), strict=True):
        assert expected[record.position] == values
    if len(found) < len(made):
        assert damages or is_cut_off(bytes(damaged))


def is_cut_off(segment: bytes) -> bool:
    """Whether the last chunk says that it is longer than the file: a power cut leaves the same, and is no damage."""
    at = SEGMENT_HEAD_BYTES
    while at < len(segment):
        at += CHUNK_HEAD_BYTES + ChunkHead(segment[at : at + CHUNK_HEAD_BYTES]).length
    return at > len(segment)


def test_last_chunk_that_says_it_is_longer_than_the_file_is_a_torn_end(tmp_path: Path) -> None:
    """Nothing tells its head from that of a chunk whose writing was cut. What stands before it is kept."""
    write(tmp_path, records(100))
    (segment,) = segments(tmp_path)
    damaged = bytearray(segment.path.read_bytes())
    ends = [SEGMENT_HEAD_BYTES]
    while ends[-1] < len(damaged):
        head = ChunkHead(bytes(damaged[ends[-1] : ends[-1] + CHUNK_HEAD_BYTES]))
        ends.append(ends[-1] + CHUNK_HEAD_BYTES + head.length)
    without_last = ChunkHead(bytes(damaged[ends[-2] : ends[-2] + CHUNK_HEAD_BYTES])).first_record
    length = ends[-1] - ends[-2] - CHUNK_HEAD_BYTES
    length_at = damaged.index(length.to_bytes(4, "little"), ends[-2])
    damaged[length_at : length_at + 4] = (length + 1).to_bytes(4, "little")
    segment.path.write_bytes(damaged)
    assert is_cut_off(bytes(damaged))
    assert content(list(read_capture(tmp_path))) == content(records(100)[:without_last])


def test_damage_costs_one_stretch_and_what_follows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "STRETCH_BYTES", 1500)
    made = records(400)
    write(tmp_path, made)
    (segment,) = segments(tmp_path)
    damaged = bytearray(segment.path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    segment.path.write_bytes(damaged)
    damages: list[Damage] = []
    found = list(read_capture(tmp_path, on_damage=damages.append))
    assert damages
    assert len(made) - 60 <= len(found) < len(made)
    assert record_of(found[-1].position) == 399


def test_a_file_without_a_head_is_set_aside_and_the_next_writer_starts(tmp_path: Path) -> None:
    write(tmp_path, records(10))
    (segment,) = segments(tmp_path)
    segment.path.write_bytes(b"\x00" * 500)
    damages: list[Damage] = []
    writer = CaptureWriter(tmp_path, on_damage=damages.append)
    position = writer.append(records(1)[0])
    writer.close()
    assert segment_of(position) == 2, "a position is never given twice"
    assert [Path(damage.path).suffix for damage in damages] == [".damaged"]
    assert len(list(read_capture(tmp_path))) == 1


def test_a_full_disk_takes_no_record_and_harms_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CaptureWriter(tmp_path)
    made = records(30)
    for record in made[:10]:
        writer.append(record)
    real = os.pwrite
    is_full = True

    def pwrite(file: int, data: bytes, offset: int) -> int:
        if is_full:
            real(file, bytes(data)[:7], offset)  # part of it, as a filling disk does
            raise OSError(errno.ENOSPC, "no space left")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="no space"):
        writer.append(made[10])
    with pytest.raises(OSError, match="no space"):
        writer.flush()
    assert content(list(read_capture(tmp_path))) == content(made[:10])
    is_full = False
    for record in made[10:20]:
        writer.append(record)
    writer.flush()
    for record in made[20:]:
        writer.append(record)
    assert content(list(read_capture(tmp_path))) == content(made)
    writer.close()
    assert content(list(read_capture(tmp_path))) == content(made)


def test_a_long_record_is_packed_in_slices_and_survives_a_kill_between_any_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packing a snapshot of 5 MB at once would hold up the event loop for as long as reading it."""
    packed: list[int] = []
    real = capture._Stream.compress

    def compress(stream: capture._Stream, data: bytes) -> bytes:
        packed.append(len(data))
        return real(stream, data)

    monkeypatch.setattr(capture._Stream, "compress", compress)
    writer = CaptureWriter(tmp_path / "live")
    made = records(40)
    made[10] = msgspec.structs.replace(made[10], payload=random.Random(1).randbytes(5 * 2**20 + 17))
    more = iter(made[20:])
    for record in made[:20]:
        writer.append(record)
    taken, has_more = made[:20], True
    slices: list[int] = []
    while has_more:
        has_more = writer.flush_slice()
        for record in (next(more, None), next(more, None)):  # the venue does not wait
            if record is not None:
                writer.append(record)
                taken.append(record)
        slices += packed
        assert content(list(read_capture(tmp_path / "live"))) == content(taken)
        killed = tmp_path / f"killed-{len(slices)}"
        shutil.copytree(tmp_path / "live", killed)
        CaptureWriter(killed).close()
        assert content(list(read_capture(killed))) == content(taken)
        packed.clear()
    assert len(slices) > 20
    assert max(slices) <= 2 * capture.PACK_BYTES
    writer.close()
    assert content(list(read_capture(tmp_path / "live"))) == content(taken)


class _Disk:
    """`os.pwrite` of a disk with so many bytes left; bytes that a file has already can be written again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: float = math.inf
        self._real = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._pwrite)

    def _pwrite(self, file: int, data: bytes, offset: int) -> int:
        new = max(0, offset + len(data) - os.fstat(file).st_size)
        if new > self.free:
            raise OSError(errno.ENOSPC, "no space left")
        self.free -= new
        return self._real(file, data, offset)


def test_an_hour_that_begins_on_a_full_disk_leaves_no_files_and_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, writer = _Disk(monkeypatch), CaptureWriter(tmp_path)
    made = records(40, start_ns=START_NS + HOUR_NS - NS // 3)
    hours = [record.received_at_ns // HOUR_NS for record in made]
    turn = hours.index(hours[-1])
    for record in made[:turn]:
        writer.append(record)
    writer.flush()
    disk.free = 0
    for record in made[turn:]:
        with pytest.raises(OSError, match="no space"):
            writer.append(record)
    assert len(list(tmp_path.iterdir())) <= 2, "the last hour's, and its tail"
    assert content(list(read_capture(tmp_path))) == content(made[:turn])
    disk.free = math.inf
    for record in made[turn:]:
        writer.append(record)
    writer.close()
    assert content(list(read_capture(tmp_path))) == content(made)
    assert [segment.number for segment in segments(tmp_path)] == [1, 2]


def test_a_record_is_taken_or_refused_and_never_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = _Disk(monkeypatch), CaptureWriter(tmp_path, CaptureSettings(flush_bytes=1))
    made = records(30)
    writer.append(made[0])
    taken = [made[0]]
    for record in made[1:]:
        disk.free = len(record.payload) + 30  # for the tail, which is written first, and no more
        try:
            writer.append(record)
        except OSError:
            continue
        taken.append(record)
    assert len(taken) > 10
    assert content(list(read_capture(tmp_path))) == content(taken)
    disk.free = math.inf
    writer.close()
    assert content(list(read_capture(tmp_path))) == content(taken)


@pytest.mark.parametrize("others_take_the_room", [True, False])
def test_a_tail_that_was_emptied_can_be_written_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others_take_the_room: bool
) -> None:
    """What the emptied tail gave back to the disk may be somebody else's a moment later."""
    disk, writer = _Disk(monkeypatch), CaptureWriter(tmp_path)
    made = records(30)
    for record in made[:10]:
        writer.append(record)
    real = os.ftruncate

    def ftruncate(file: int, length: int) -> None:
        real(file, length)
        disk.free = 0 if others_take_the_room else math.inf

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    writer.flush()
    disk.free = math.inf
    for record in made[10:]:
        writer.append(record)
    # The process dies here: no close.
    assert content(list(read_capture(tmp_path))) == content(made)
    CaptureWriter(tmp_path)
    assert content(list(read_capture(tmp_path))) == content(made)


def test_a_recording_becomes_eight_times_smaller_with_a_chunk_each_second(recordings: Path, tmp_path: Path) -> None:
    """Also without the two big snapshots, which compress best."""
    frames = list(open_recording(recordings / rec.ADVANCED).records)
    for chosen in (frames, [r for r in frames if r.kind is RecordKind.RECEIVED and len(r.payload) < 100_000]):
        directory = tmp_path / str(len(chosen))
        writer = CaptureWriter(directory)
        last_ns = 0
        for record in chosen:
            if record.received_at_ns - last_ns >= NS:
                writer.flush()
                last_ns = record.received_at_ns
            writer.append(record)
        writer.close()
        size = sum(segment.size_bytes for segment in segments(directory))
        assert sum(len(record.payload) for record in chosen) / size >= 8


def test_our_capture_is_a_known_recording(recordings: Path, tmp_path: Path) -> None:
    """Recorded by us from their recording, it says the same; as a directory and as one file."""
    source = recordings / rec.EXCHANGE_2026
    writer = CaptureWriter(tmp_path / "ours")
    for record in open_recording(source).records:
        writer.append(record)
    writer.close()
    (segment,) = segments(tmp_path / "ours")
    _, rows = rec.replay(source)
    for path in (tmp_path / "ours", segment.path):
        assert rec.replay(path)[1] == rows
