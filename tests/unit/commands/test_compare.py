"""``ladder-search compare``: curves of small studies on common seeds, kept and told; what cannot be is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ladder_search import cli


def compare(root: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    line = ["ladder-search", "compare", *arguments, "--seeds", "3", "--epochs", "2", "--root", str(root)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_curves_are_kept_drawn_and_told_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path, "digits-100-base", "digits-all-base", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "digits: test accuracy in %, mean ± standard deviation over 3 seeds, nothing held out" in out
    place = tmp_path / "comparisons" / "digits"
    kept = json.loads((place / "learning.json").read_text())
    assert kept["reference"] == "digits-100-base" and kept["transfer"]["digits-100-base"] == 1.0
    for name in ("digits-100-base", "digits-all-base"):
        curves = kept["curves"][name]["accuracy"]
        assert {len(curve) for curve in curves.values()} == {2} and set(curves) == {"1001", "1002", "1003"}
        assert f"{name} " in out
    assert {one["what"] for one in kept["differences"]} == {"area", "epoch 1", "epoch 2"}
    assert (place / "learning-curves.png").stat().st_size > 10_000
    before = (place / "digits-100-base" / "result.json").stat().st_mtime_ns
    assert compare(tmp_path, "digits-100-base", "digits-all-base", monkeypatch=monkeypatch) == 0
    assert (place / "digits-100-base" / "result.json").stat().st_mtime_ns == before  # nothing is trained again
    assert json.loads((place / "learning.json").read_text()) == kept


@pytest.mark.parametrize(
    ("studies", "sentence"),
    [
        (["digits-100"], "two studies or more on the same data, got digits-100 on digits; name others."),
        (["digits-100", "mnist-100-full"], "got digits-100 on digits, mnist-100-full on mnist; name others."),
        (["digits-100", "digits-10"], "unknown study 'digits-10'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(
    studies: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(tmp_path, *studies, monkeypatch=monkeypatch) == 2
    found = capsys.readouterr().err
    assert sentence in found and found.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
