import errno
import os
import threading
from pathlib import Path

import pytest

from ladder_search.disk.lock import Lock, hold
from ladder_search.errors import TrackingError
from ladder_search.tracking.events import Close, Event, Tags
from ladder_search.tracking.folder import SpoolFolder
from ladder_search.tracking.spool import SpoolAppender, SpoolReader


def tag(i: int, size: int = 1) -> Event:
    return Tags("k", {"t": f"{i}" * size})


def read_all(path: Path) -> list[tuple[int, Event]]:
    reader = SpoolReader(path)
    found = []
    while records := reader.read():
        found += [(record.n, record.event) for record in records]
    reader.close()
    return found


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    spool = SpoolAppender(tmp_path / "deep" / "spool", "digits")
    for i in range(5):
        spool.append(tag(i))
    spool.fsync_soon()
    assert read_all(tmp_path / "deep" / "spool") == [(i + 1, tag(i)) for i in range(5)]
    assert SpoolReader(tmp_path / "deep" / "spool").header() == spool.header
    spool.close()
    spool.close()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for i in range(3):
        spool = SpoolAppender(tmp_path, "digits")
        assert spool.next_number == i + 1
        spool.append(tag(i))
        spool.close()
    assert [n for n, _ in read_all(tmp_path)] == [1, 2, 3]


def test_a_missing_or_empty_spool_reads_as_nothing(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path / "none")
    assert reader.read() == [] and reader.header() is None and reader.backlog() == 0
    (tmp_path / "events.jsonl").touch()
    assert SpoolReader(tmp_path).read() == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_half_line_waits_and_is_removed_by_the_next_appender(tmp_path: Path, cut: int) -> None:
    spool = SpoolAppender(tmp_path, "digits")
    spool.append(tag(1))
    spool.append(tag(2))
    spool.close()
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])

    reader = SpoolReader(tmp_path)
    assert [r.n for r in reader.read()] == [1]
    assert reader.read() == []
    file.write_bytes(whole)  # the rest arrives
    assert [r.n for r in reader.read()] == [2]

    file.write_bytes(whole[:-cut])
    again = SpoolAppender(tmp_path, "digits")
    assert again.cut_bytes > 0 and again.next_number == 2
    again.append(tag(3))
    again.close()
    assert read_all(tmp_path) == [(1, tag(1)), (2, tag(3))]


def test_a_reader_that_saw_the_half_line_is_not_confused_by_what_replaces_it(tmp_path: Path) -> None:
    spool = SpoolAppender(tmp_path, "digits")
    spool.append(tag(1))
    spool.close()
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes() + b'{"n":2,"e":"tags","key":"k","ta')
    reader = SpoolReader(tmp_path)
    assert [r.n for r in reader.read()] == [1] and reader.read() == []
    again = SpoolAppender(tmp_path, "digits")
    again.append(Close(7))
    assert [r.event for r in reader.read()] == [Close(7)]
    again.close()


def test_a_cut_header_starts_a_new_spool(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"ladder_spo')
    spool = SpoolAppender(tmp_path, "digits")
    assert spool.cut_bytes == 12 and spool.next_number == 1
    spool.close()


def test_a_file_that_is_no_spool_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"my notes\n")
    with pytest.raises(TrackingError, match="header line"):
        SpoolAppender(tmp_path, "digits")
    assert (tmp_path / "events.jsonl").read_bytes() == b"my notes\n"


def test_damaged_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    spool = SpoolAppender(tmp_path, "digits")
    spool.append(tag(1))
    spool.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b"\x00\x00garbage\n\n")
    again = SpoolAppender(tmp_path, "digits")
    assert again.next_number == 2
    again.append(tag(2))
    again.close()
    reader = SpoolReader(tmp_path)
    assert [r.n for r in reader.read()] == [1, 2]
    assert reader.unreadable == 2


def test_a_line_longer_than_a_chunk_and_small_chunks(tmp_path: Path) -> None:
    spool = SpoolAppender(tmp_path, "digits")
    for i in range(4):
        spool.append(tag(i, size=1000))
    spool.close()
    reader = SpoolReader(tmp_path)
    assert [[r.n for r in reader.read(limit=100)] for _ in range(5)] == [[1], [2], [3], [4], []]
    assert reader.backlog() == 0


def test_two_appenders_on_one_spool_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladder_search.tracking.spool.LOCK_PATIENCE_S", 0.2)
    first = SpoolAppender(tmp_path, "digits")
    with pytest.raises(TrackingError, match=f"in use by process {os.getpid()}: wait until it ends"):
        SpoolAppender(tmp_path, "digits")
    threading.Timer(0.3, first.close).start()
    monkeypatch.setattr("ladder_search.tracking.spool.LOCK_PATIENCE_S", 5.0)
    SpoolAppender(tmp_path, "digits").close()  # a lock that is about to be freed is waited for


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_use_a_spool(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        SpoolAppender(tmp_path / "spool", "digits").close()
        assert Lock(SpoolFolder(tmp_path / "spool").writer_lock).acquire()
        hold(tmp_path / "study")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == dict.fromkeys(
        ("events.jsonl", "appender.lock", "writer.lock", "lock"), mode
    )


def test_a_spool_of_another_experiment_is_refused_and_free_again(tmp_path: Path) -> None:
    SpoolAppender(tmp_path, "digits").close()
    with pytest.raises(TrackingError, match="belongs to one experiment, .* to 'digits' and not to 'mnist'"):
        SpoolAppender(tmp_path, "mnist")
    SpoolAppender(tmp_path, "digits").close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="must be writable"):
        SpoolAppender(tmp_path / "file" / "spool", "digits")


class FullDisk:
    """Takes ``room`` bytes, then writes a part and refuses."""

    def __init__(self) -> None:
        self.room = 1 << 30

    def write(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        return os.write(fd, part)


def test_a_full_disk_keeps_events_in_memory_until_there_is_room(tmp_path: Path) -> None:
    disk, now = FullDisk(), [0.0]
    spool = SpoolAppender(tmp_path, "digits", write=disk.write, clock=lambda: now[0])
    spool.append(tag(1))
    disk.room = 10  # less than a line: what was begun must be taken back
    for i in (2, 3, 4):
        spool.append(tag(i))
    assert [n for n, _ in read_all(tmp_path)] == [1]
    assert spool.pending == 3 and spool.last_error is not None and "No space left" in spool.last_error
    disk.room = 1 << 30
    spool.append(tag(5))  # too early to ask again
    assert spool.pending == 4
    now[0] += 1.0
    spool.append(tag(6))
    assert spool.pending == 0 and spool.lost == 0
    assert read_all(tmp_path) == [(i, tag(i)) for i in range(1, 7)]
    spool.close()


def test_what_finds_no_room_in_memory_either_is_counted(tmp_path: Path) -> None:
    disk = FullDisk()
    spool = SpoolAppender(tmp_path, "digits", pending_bytes=500, write=disk.write, clock=lambda: 0.0)
    disk.room = 0
    for i in range(1, 101):
        spool.append(tag(i))
    assert 0 < spool.pending < 20 and spool.lost == 100 - spool.pending
    spool.close()
    assert spool.lost == 100
    again = SpoolAppender(tmp_path, "digits")
    assert again.next_number == 1
    again.close()
