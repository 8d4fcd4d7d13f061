"""Disks that take nothing, mounted for real: one sentence, before anything is trained, and nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ladder_search import cli
from tests.e2e.faults import fill, small_disk


@pytest.fixture(params=["read-only", "full"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; even root cannot write to it."""
    with ExitStack() as stack:
        try:
            place = stack.enter_context(small_disk(tmp_path / "disk", "1m"))
        except PermissionError as error:
            pytest.skip(str(error))
        (place / "kept").write_bytes(b"k" * 1000)
        if request.param == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        else:
            fill(place, room=0)
        yield place


def _files(disk: Path) -> list[Path]:
    return sorted(path for path in disk.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "arguments",
    [
        "search digits-100 --trials 2 --epochs 1 --root {disk}/results",
        "search digits-100 --trials 2 --epochs 1 --root {other} --storage {disk}/checkpoints",
        "train digits-100 --seeds 1 --epochs 1 --root {other} -o {disk}/final",
        "reproduce digits-100 --seeds 1 --epochs 1 --root {other} -o {disk}/reproductions",
    ],
)
def test_a_disk_that_takes_nothing(
    arguments: str,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    before = _files(disk)
    words = arguments.format(disk=disk, other=tmp_path / "other").split()
    monkeypatch.setattr(sys, "argv", ["ladder-search", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and "writ" in said.err
    assert "epoch 1/1" not in said.out
    assert _files(disk) == before
    assert not list(tmp_path.glob("other/*/study.json"))
