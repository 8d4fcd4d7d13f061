"""``ladder-search compare``: curves of small studies on common seeds, kept and told; what cannot be is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder_search import cli
from ladder_search.console import Console
from ladder_search.metrics import NLL
from ladder_search.report.comparison import print_comparison
from ladder_search.reproduction.learning import Learning
from ladder_search.studies import STUDIES, Study


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
    # A comparison of other studies on the same data lies beside it, whatever the first file holds.
    assert compare(tmp_path, "digits-all-base", "digits-100-base", monkeypatch=monkeypatch) == 0
    assert json.loads((place / "learning.json").read_text()) == kept
    (other,) = place.glob("learning-*.json")
    assert json.loads(other.read_text())["reference"] == "digits-all-base"
    assert len(list(place.glob("learning-curves-*.png"))) == 1
    (place / "learning.json").write_text("no comparison")
    assert compare(tmp_path, "digits-all-base", "digits-100-base", monkeypatch=monkeypatch) == 0
    assert (place / "learning.json").read_text() == "no comparison"


def test_nats_are_told_as_nats(capsys: pytest.CaptureFixture[str]) -> None:
    curves = {"lstm": {1: (9.0, 8.5), 2: (9.2, 8.7)}, "ladder": {1: (8.8, 8.3), 2: (8.9, 8.6)}}
    print_comparison(Console(), [Learning(name=n, title="", curves=c, measure=NLL) for n, c in curves.items()], "music")
    out = capsys.readouterr().out
    assert "music: test NLL, nats per step, mean ± standard deviation over 2 seeds" in out
    assert "8.600 ± 0.141" in out and "ladder below lstm: 0.150 ± 0.071 nats, n 2" in out
    assert "transfer: area over that of lstm, less is better; lost" in out
    assert "accuracy" not in out and "%" not in out and "points" not in out


def test_only_what_is_judged_alike_is_compared(
    judged_by: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(STUDIES, "toy-nll", judged_by("nll"))
    assert compare(tmp_path, "digits-100", "toy-nll", monkeypatch=monkeypatch) == 2
    assert "measure, got digits-100 by its error, toy-nll by its NLL; name others." in capsys.readouterr().err


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
