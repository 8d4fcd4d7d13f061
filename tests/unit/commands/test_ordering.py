"""``ladder-search ordering``: tiny studies trained, taken over, read, told; what cannot be is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ladder_search import cli
from ladder_search.commands import sending
from ladder_search.ordering.claims import ORDERINGS, Claim, Ordering
from ladder_search.studies import STUDIES, find_study
from ladder_search.tracking import NullTracker

LEVELS = ("conv:2:3:2 lstm:2:3", "conv:2:3:2 dense-lstm:4")
SEEN, FRAMES = "occluded-digits-mini-seen", "occluded-digits-mini"
NAMES = ("tiny-static", "tiny-hierarchical", "tiny-rladder")

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies like those of table 1, on scikit-learn's digits."""
    for kind in ("static", "hierarchical", "rladder"):
        study = find_study(f"occluded-mnist-mini-{kind}")
        static = kind == "static"
        levels = ("conv:2:3:2 none", "conv:2:3:2 dense:4") if static else LEVELS
        small = replace(
            study,
            name=f"tiny-{kind}",
            data=replace(study.data, dataset=SEEN if static else FRAMES, validation=200),
            model=replace(study.model, levels=levels),
            training=replace(study.training, epochs=2, labelled_batch=100, unlabelled_batch=100),
        )
        monkeypatch.setitem(STUDIES, small.name, small)
    claims = (
        Claim(kind="alike", first=NAMES[0], second=NAMES[2], bound=0.5, text="they are alike"),
        Claim(first=NAMES[2], second=NAMES[1], text="a decoder helps"),
    )
    whole = Ordering(name="tiny", title="three", source="nobody", measure="error", studies=NAMES, claims=claims)
    monkeypatch.setitem(ORDERINGS, "tiny", whole)
    monkeypatch.setitem(
        ORDERINGS, "pair", replace(whole, name="pair", studies=NAMES[1:], claims=claims[1:], measure="error")
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[_Kept]:
    """What is sent to the tracking store, in the place of a writer's process."""
    kept: list[_Kept] = []

    def make(folder: Path, store: str, experiment: str) -> _Kept:
        kept.append(_Kept())
        return kept[-1]

    monkeypatch.setattr(sending, "SpoolTracker", make)
    return kept


class _Kept(NullTracker):
    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, object] = {}
        self.files: list[str] = []

    def start_run(self, key: str, **of_run: object) -> None:  # type: ignore[override]
        self.told |= {"key": key, **of_run}

    def log_metrics(self, key: str, points: object) -> None:  # type: ignore[override]
        self.told["metrics"] = points

    def log_artifact(self, key: str, path: Path, folder: str = "") -> None:
        self.files.append(path.name)

    def problems(self) -> list[str]:
        return []


@pytest.fixture
def ordering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[_Kept]) -> Run:
    def run(*arguments: str) -> int:
        line = ["ladder-search", "ordering", *arguments, "--root", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def test_what_is_not_trained_is_and_the_claims_are_tested(
    ordering: Run, runs: list[_Kept], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ordering("tiny", "--seeds", "2", "--epochs", "1", "--curve", "1") == 0
    out = capsys.readouterr().out
    place, trained = tmp_path / "orderings" / "tiny-1-epochs", tmp_path / "orderings" / "trained"
    kept = json.loads((place / "ordering.json").read_text())
    assert kept["seeds"] == [1001, 1002] and kept["reduced_to_epochs"] == 1 and set(kept["studies"]) == set(NAMES)
    values = {name: kept["studies"][name]["values"] for name in NAMES}
    for name in NAMES:
        result = json.loads((trained / f"{name}-1-epochs" / "seeds-1001-1002" / "result.json").read_text())
        assert values[name] == {str(o["seed"]): o["test_error"] for o in result["outcomes"]}
    one, two = kept["claims"]
    apart = [values["tiny-hierarchical"][seed] - values["tiny-rladder"][seed] for seed in ("1001", "1002")]
    assert two["difference"] == pytest.approx(sum(apart) / 2) and one["kind"] == "alike"
    assert "tiny, schedules reduced to 1 epochs: test error over 2 seeds" in out
    assert "rladder < hierarchical" in out and "static ~ rladder ± 50.00 points" in out
    assert out.count("Every schedule was reduced to 1 epochs") == 1 and "claims are held" in out
    assert (place / "ordering.png").stat().st_size > 10_000
    assert "| 2 | rladder < hierarchical | 2 |" in (place / "ordering.md").read_text()
    assert runs[0].told["tags"]["kind"] == "ordering"  # type: ignore[index]
    assert {"ordering.json", "ordering.md", "ordering.png", "ordering.html"} <= set(runs[0].files)
    page = (place / "learning-curves.html").read_text()
    assert all(f"{name} (2 seeds)" in page for name in NAMES) and "learning-curves.png" in runs[0].files

    results = {path: path.stat().st_mtime_ns for path in trained.rglob("result.json")}
    assert ordering("tiny", "--seeds", "2", "--epochs", "1") == 0  # nothing is trained or told twice
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("result.json")} == results
    assert (runs[1].told["key"], runs[1].told["metrics"]) == (runs[0].told["key"], runs[0].told["metrics"])

    # An ordering of two of them finds both, and one more seed is all that is trained.
    assert ordering("pair", "--seeds", "3", "--epochs", "1") == 0
    assert {p.parent.name for p in trained.rglob("result.json") if p not in results} == {"seeds-1003-1003"}
    kept = json.loads((tmp_path / "orderings" / "pair-1-epochs" / "ordering.json").read_text())
    assert kept["seeds"] == [1001, 1002, 1003]
    capsys.readouterr()

    # The same results as `train` leaves them: a folder for each study.
    for name in NAMES:
        shutil.copytree(trained / f"{name}-1-epochs" / "seeds-1001-1002", tmp_path / "final" / name)
    there = str(tmp_path / "final")
    assert ordering("tiny", "--from", there, "--epochs", "1", "-o", str(tmp_path / "read")) == 0
    again = json.loads((tmp_path / "read" / "ordering.json").read_text())
    assert "tiny-rladder (2 seeds)" in (tmp_path / "read" / "learning-curves.html").read_text()
    assert {name: again["studies"][name]["values"] for name in NAMES} == values
    assert again["claims"] == json.loads((place / "ordering.json").read_text())["claims"]
    assert ordering("tiny", "--from", there) == 2
    assert "training.epochs is 1 there and 2 here; give its --epochs." in capsys.readouterr().err

    shutil.rmtree(tmp_path / "final" / "tiny-static")
    assert ordering("tiny", "--from", there, "--epochs", "1", "-o", str(tmp_path / "partly")) == 0
    out = capsys.readouterr().out
    assert "No result yet of tiny-static: claims about them are not tested." in out and "No verdict" in out

    other = tmp_path / "final" / "tiny-hierarchical"
    shutil.rmtree(other)
    shutil.copytree(tmp_path / "final" / "tiny-rladder", other)
    assert ordering("tiny", "--from", there, "--epochs", "1") == 2
    assert f"{other} must hold a final training of tiny-hierarchical, found one of tiny-rladder" in _sentence(capsys)
    _change(other, "study", "tiny-hierarchical")
    assert ordering("tiny", "--from", there, "--epochs", "1") == 2
    assert "model.decoder is True there and False here; train it again" in _sentence(capsys)
    shutil.rmtree(other)
    shutil.copytree(trained / "tiny-hierarchical-1-epochs" / "seeds-1001-1002", other)
    _change(other, "data_digest", "0" * 64)
    assert ordering("tiny", "--from", there, "--epochs", "1") == 2
    assert "trained on different data called occluded-digits-mini" in _sentence(capsys)
    shutil.rmtree(other)
    shutil.copytree(trained / "tiny-hierarchical-1-epochs" / "seeds-1003-1003", other)
    assert ordering("tiny", "--from", there, "--epochs", "1") == 2
    assert "got tiny-hierarchical on 1003 to 1003, tiny-rladder on 1001 to 1002" in _sentence(capsys)


def _change(folder: Path, name: str, value: str) -> None:
    raw = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**raw, name: value}))


def _sentence(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr().err
    assert found.startswith("error: ") and found.count("\n") == 1
    return found


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tini"], "unknown ordering 'tini': did you mean 'tiny'?"),
        (["tiny", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["tiny", "--epochs", "3"], "those of tiny have 2 epochs, got 3; give fewer or none."),
        (["tiny", "--curve", "2", "--from", "final"], "got --curve 2 and --from final; leave one of them out."),
        (["tiny", "--seeds", "3", "--from", "final"], "got --seeds 3 and --from final; leave one of them out."),
        (["tiny", "--from", "nowhere"], "nowhere has none of tiny-static, tiny-hierarchical, tiny-rladder; name"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    arguments: list[str], sentence: str, ordering: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ordering(*arguments) == 2
    assert sentence in _sentence(capsys)
    assert list(tmp_path.iterdir()) == []
