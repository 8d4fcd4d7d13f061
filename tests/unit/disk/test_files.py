"""Files that are whole or absent, on file systems that lack something, too."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder_search.disk.features import LINKS, LOCKS, SYNC, lacking
from ladder_search.disk.files import append_line, copy_content, sync_folder, write_atomically
from ladder_search.disk.folders import write_folder


def _only_files(fsync: Callable[[int], None], code: int) -> Callable[[int], None]:
    def refused(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    return refused


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.EACCES])
def test_a_file_system_that_syncs_no_folder_holds_files_and_folders(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMB and exFAT: what was written was taken for lost, and a folder of the temporary name stayed."""
    monkeypatch.setattr(os, "fsync", _only_files(os.fsync, code))
    assert not sync_folder(tmp_path)
    write_atomically(tmp_path / "a", lambda file: file.write(b"a"))
    write_folder(tmp_path / "b", {"c": b"c"})
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b" / "c").read_bytes()) == (b"a", b"c")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_disk_that_refuses_a_folder_is_not_taken_for_one_that_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _only_files(os.fsync, errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "a", lambda file: file.write(b"a"))


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_syncs_nothing_holds_files_and_folders(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems of FUSE: the cache folder was refused as one that has no space."""

    def refused(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    write_atomically(tmp_path / "a", lambda file: file.write(b"a"))
    append_line(tmp_path / "b", b"b\n", wait=True)
    write_folder(tmp_path / "c", {"d": b"d"})
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) == [b"a", b"b\n", b"d"]


def test_content_is_copied_where_no_mode_and_time_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"c")
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refused)
    for _ in range(2):
        copy_content(tmp_path / "a", tmp_path / "d")
    assert (tmp_path / "d" / "b" / "c").read_bytes() == b"c"


@pytest.mark.parametrize("mask", [0o077, 0o002, 0o022])
def test_the_umask_decides(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        append_line(tmp_path / "lines", b"a\n")
        write_atomically(tmp_path / "whole", lambda file: file.write(b"a"))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


def test_what_a_file_system_lacks_is_found_by_trying_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    assert lacking(tmp_path) == []
    monkeypatch.setattr("fcntl.flock", refused)
    assert lacking(tmp_path) == [LOCKS]
    monkeypatch.setattr(os, "symlink", refused)
    monkeypatch.setattr(os, "fsync", _only_files(os.fsync, errno.EINVAL))
    assert lacking(tmp_path) == [LOCKS, LINKS, SYNC]
    assert os.listdir(tmp_path) == []
