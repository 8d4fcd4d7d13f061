"""The cache: round trips, damage of every kind, folders that cannot be used, two processes at once."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from ladder_search.data import cache
from ladder_search.data.arrays import Arrays, content_digest, quiet
from ladder_search.errors import DataError


def some_arrays(seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return Arrays(
        random.integers(0, 256, (50, 4, 3), np.uint8),
        random.integers(0, 10, 50, np.uint8),
        random.integers(0, 256, (20, 4, 3), np.uint8),
        random.integers(0, 10, 20, np.uint8),
    )


ARRAYS = some_arrays()
DIGEST = content_digest(ARRAYS)


class Builder:
    """Builds the arrays and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return ARRAYS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill() -> Path:
    cache.load_or_build("toy", DIGEST, Builder(), quiet)
    return cache.cache_file("toy")


def test_round_trip_keeps_shape_type_and_bytes_and_builds_once() -> None:
    build = Builder()
    for _ in range(3):
        found, digest = cache.load_or_build("toy", DIGEST, build, quiet)
        assert digest == DIGEST
        for name, array in found._asdict().items():
            np.testing.assert_array_equal(array, getattr(ARRAYS, name), strict=True)
            assert not array.flags.writeable
    assert build.calls == 1


def test_without_a_known_digest_the_first_build_is_recorded_and_verified_from_then_on() -> None:
    build = Builder()
    for _ in range(2):
        found, digest = cache.load_or_build("toy", None, build, quiet)
        assert digest == DIGEST
        np.testing.assert_array_equal(found.train_x, ARRAYS.train_x)
    assert build.calls == 1 and cache.is_cached("toy", None) and cache.is_cached("toy", DIGEST)

    path = cache.cache_file("toy")
    good = path.read_bytes()
    altered = bytearray(good)
    altered[good.index(ARRAYS.test_x.tobytes()) + 7] ^= 1
    path.unlink()
    path.write_bytes(altered)
    lines: list[str] = []
    assert cache.load_or_build("toy", None, build, lines.append)[1] == DIGEST
    assert build.calls == 2 and path.read_bytes() == good
    assert f"expected content sha256 {DIGEST}, found " in lines[0]


def test_a_file_that_records_no_digest_is_none_of_ours() -> None:
    path = fill()
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good.replace(b"digest", b"digger"))
    assert not cache.is_cached("toy", None)
    build = Builder()
    assert cache.load_or_build("toy", None, build, quiet)[1] == DIGEST
    assert build.calls == 1


def test_reading_copies_nothing() -> None:
    fill()
    before = pa.total_allocated_bytes()
    found, _ = cache.load_or_build("toy", DIGEST, Builder(), quiet)
    assert pa.total_allocated_bytes() == before
    assert not any(array.flags.owndata for array in found)


def test_the_file_is_plain_arrow_with_name_version_and_digest() -> None:
    with pa.memory_map(str(fill())) as file:
        reader = pa.ipc.open_file(file)
        assert reader.schema.metadata == {b"name": b"toy", b"version": b"1", b"digest": DIGEST.encode()}
        assert [reader.get_batch(i).num_rows for i in range(2)] == [50, 20]
        assert reader.schema.names == ["x", "y"]


def test_the_default_folder_is_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.cache_folder() == Path("/home/someone/.cache/ladder-search")
    monkeypatch.setenv("LADDER_SEARCH_CACHE", "~/elsewhere")
    assert cache.cache_folder() == Path("/home/someone/elsewhere")


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.5, -1])
def test_a_truncated_file_is_rebuilt_with_a_warning(keep: float) -> None:
    path = fill()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    lines: list[str] = []
    build = Builder()
    assert not cache.is_cached("toy", "0" * 64)
    found, _ = cache.load_or_build("toy", DIGEST, build, lines.append)
    assert content_digest(found) == DIGEST
    assert build.calls == 1
    assert len(lines) == 1 and "is damaged" in lines[0] and str(path) in lines[0]
    assert path.read_bytes() == content


def test_a_flipped_bit_anywhere_in_the_content_is_detected() -> None:
    path = fill()
    good = path.read_bytes()
    for array in ARRAYS:
        place = good.index(array.tobytes())
        for at in (place, place + array.nbytes // 2, place + array.nbytes - 1):
            altered = bytearray(good)
            altered[at] ^= 1
            path.unlink()  # a new file: writing into the old one would alter what is mapped
            path.write_bytes(altered)
            lines: list[str] = []
            found, _ = cache.load_or_build("toy", DIGEST, Builder(), lines.append)
            assert content_digest(found) == DIGEST
            assert f"expected content sha256 {DIGEST}, found " in lines[0]
            assert path.read_bytes() == good


def test_an_altered_schema_never_gets_through_nor_crashes() -> None:
    path = fill()
    good = path.read_bytes()
    for at in range(0, len(good), 11):
        path.unlink()
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        assert content_digest(cache.load_or_build("toy", DIGEST, Builder(), quiet)[0]) == DIGEST


def test_a_file_of_other_content_is_rebuilt() -> None:
    other = some_arrays(1)
    cache.load_or_build("toy", content_digest(other), lambda: other, quiet)
    assert cache.is_cached("toy", content_digest(other)) and not cache.is_cached("toy", DIGEST)
    lines: list[str] = []
    cache.load_or_build("toy", DIGEST, Builder(), lines.append)
    assert f"expected digest {DIGEST}, found {content_digest(other)}" in lines[0]
    assert cache.is_cached("toy", DIGEST)


def test_damage_that_cannot_be_mended_says_both() -> None:
    path = fill()
    path.write_bytes(path.read_bytes()[:200])

    def fail() -> Arrays:
        raise DataError("the network is down; plug it in.")

    with pytest.raises(
        DataError, match=r"is damaged \(.*\) and cannot be built again: the network is down; plug it in\."
    ):
        cache.load_or_build("toy", DIGEST, fail, quiet)


def test_a_builder_of_something_else_is_refused_and_leaves_no_file(folder: Path) -> None:
    with pytest.raises(DataError, match=f"must have the content sha256 {DIGEST}, what was loaded has "):
        cache.load_or_build("toy", DIGEST, lambda: some_arrays(1), quiet)
    assert [path.name for path in folder.iterdir()] == ["toy.v1.arrow.lock"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*set LADDER_SEARCH_CACHE to another folder"):
        cache.load_or_build("toy", DIGEST, Builder(), quiet)
    assert [path.name for path in folder.iterdir()] == ["toy.v1.arrow.lock"]


def test_an_interrupt_leaves_nothing_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.load_or_build("toy", DIGEST, Builder(), quiet)
    assert [path.name for path in folder.iterdir()] == ["toy.v1.arrow.lock"]


def test_what_a_killed_writer_left_is_cleared_away(folder: Path) -> None:
    folder.mkdir()
    (folder / ".toy.v1.arrow.0123456789ab.tmp").write_bytes(b"half")
    fill()
    assert sorted(path.name for path in folder.iterdir()) == ["toy.v1.arrow", "toy.v1.arrow.lock"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"must be writable, .*file/cache is not .*LADDER_SEARCH_CACHE"):
        cache.load_or_build("toy", DIGEST, Builder(), quiet)


def test_a_filled_cache_in_a_read_only_folder_works(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: pytest.fail("reading must not write"))
    monkeypatch.setattr(fcntl, "flock", lambda *a: pytest.fail("reading must not lock"))
    assert content_digest(cache.load_or_build("toy", DIGEST, Builder(), quiet)[0]) == DIGEST


def test_a_folder_without_locks_works_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lines: list[str] = []
    cache.load_or_build("toy", DIGEST, Builder(), lines.append)
    assert len(lines) == 1 and lines[0].startswith(
        f"{cache.cache_folder()} is on a file system without file locks; the"
    )
    assert sorted(os.listdir(cache.cache_folder())) == ["toy.v1.arrow", "toy.v1.arrow.lock"]


def test_two_that_ask_at_once_build_once() -> None:
    # flock excludes open files, so two threads stand for two processes. No clock: each step waits for the other's.
    building, waiting = threading.Event(), threading.Event()
    calls: list[str] = []
    found: list[tuple[Arrays, str]] = []

    def slow_build() -> Arrays:
        calls.append("first")
        building.set()
        assert waiting.wait(10)
        return ARRAYS

    def second_build() -> Arrays:
        calls.append("second")
        return ARRAYS

    def second_notify(line: str) -> None:
        assert "waiting" in line
        waiting.set()

    first = threading.Thread(target=lambda: found.append(cache.load_or_build("toy", DIGEST, slow_build, quiet)))
    second = threading.Thread(
        target=lambda: found.append(cache.load_or_build("toy", DIGEST, second_build, second_notify))
    )
    first.start()
    assert building.wait(10)
    second.start()
    first.join(10)
    second.join(10)
    assert calls == ["first"]
    assert [(content_digest(arrays), digest) for arrays, digest in found] == [(DIGEST, DIGEST)] * 2
