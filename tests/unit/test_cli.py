"""The console script: its commands, and its mistakes as single sentences."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from ladder_search import cli
from ladder_search.commands.sending import tracking_store
from ladder_search.record.folder import StudyFolder
from ladder_search.tracking import writer


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ladder-search", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def _begun(path: Path) -> None:
    StudyFolder(path).create({"settings": {"study": "digits-100"}, "store": "sqlite:///x.db"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nothing", "--root", "{root}"], "must be a study folder or a study that was searched"),
        (["export", "nothing", "--top", "0"], "--top must be at least 1"),
        (["sync", "nothing", "--root", "{root}"], "must be a study folder"),
        (["ui", "--root", "{root}"], "does not exist yet"),
        (["ui", "--tracking", "ftp://x"], "a tracking address starts with"),
        (["train", "no-such-thing"], "unknown bundle or study 'no-such-thing'"),
        (
            ["train", "configs/01-t0021"],
            "a bundle is a folder with a MANIFEST.json and configs/01-t0021 does not exist",
        ),
        (["train", "./digits-10"], "a bundle is a folder with a MANIFEST.json and digits-10 does not exist"),
        (["train", "nothing/"], "a bundle is a folder with a MANIFEST.json and nothing does not exist"),
        (["train", "01-t0021"], "a bundle is a folder with a MANIFEST.json and 01-t0021 does not exist"),
        (["train", "/dev/null"], "a bundle is a folder with a MANIFEST.json and /dev/null is no folder"),
        (["train", "digits-100", "--seeds", "0"], "--seeds must be at least 1"),
        (["train", "digits-100", "--epochs", "0"], "--epochs must be at least 1"),
        (["train", "digits-100", "--curve", "0"], "--curve must be at least 1"),
        (["train", "digits-100", "--set", "training.lr"], "a setting is given as name=value, got 'training.lr'"),
        (["train", "digits-100", "--set", "training.rl=1"], "did you mean 'training.lr'?"),
        (["train", "digits-100", "--set", "seed=3"], "unknown group of settings 'seed'"),
        (["train", "digits-100", "--set", "model.widths=[64,20]"], "model.noise_std must have one entry per layer"),
        (["train", "digits-100", "--device", "tpu"], "unknown device 'tpu': did you mean 'cpu'? Known: cpu, cuda"),
        (["train", "digits-100", "--tracking", "a/folder"], "is a plain folder"),
        (["analyse", "nothing"], "a bundle is a folder with a MANIFEST.json and nothing does not exist"),
        (["analyse", "{root}"], "MANIFEST.json must be readable JSON"),
        (["analyse", "nothing", "--rows", "0"], "--rows must be at least 1"),
        (["analyse", "nothing", "--draws", "-1"], "--draws must be at least 1"),
        (["analyse", "nothing", "--device", "tpu"], "unknown device 'tpu': did you mean 'cpu'? Known: cpu, cuda"),
        (["analyse", "nothing", "--tracking", "a/folder"], "is a plain folder"),
        (["reproduce", "digits-10"], "did you mean 'digits-100'"),
        (["reproduce", "digits-100", "--seeds", "0"], "--seeds must be at least 1"),
        (["reproduce", "digits-100", "--epochs", "500"], "--epochs shortens a reproduction, digits-100 has 75"),
        (["reproduce", "digits-100", "--time-budget", "nan"], "--time-budget must be at least 1"),
        (["reproduce", "digits-100", "--contenders", "-1"], "--contenders must be at least 0"),
        (["reproduce", "digits-100", "-o", "/dev/null"], "must be writable"),
        (["report", "nothing", "--root", "{root}"], "unknown study 'nothing'"),
        (["report", "digits-100", "--root", "{root}"], "neither searched nor reproduced"),
        (["report", "--root", "{root}"], "a report needs a search or a reproduction"),
        (["search", "digits-10"], "did you mean 'digits-100'"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert _run(monkeypatch, *[argument.format(root=tmp_path) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and message in shown.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_lists_the_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "serch") == 2
    assert "unknown command 'serch': did you mean 'search'? Known: analyse," in capsys.readouterr().err


def _report(**changed: Any) -> writer.SyncReport:
    values = {"events": 3, "left_bytes": 0, "rejected": 0, "missing": 0, "unreadable": 0, "error": None}
    return writer.SyncReport(**{**values, **changed})


def test_sync_goes_on_past_a_damaged_folder_and_says_what_was_not_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        _begun(tmp_path / name)
    (tmp_path / "a" / "study.json").write_text("{")
    reports = {"b": _report(left_bytes=10, error="the server is down"), "c": _report()}
    monkeypatch.setattr(writer, "sync", lambda spool, store, experiment: reports[spool.parent.name])
    assert _run(monkeypatch, "sync", "--root", str(tmp_path)) == 2
    shown = capsys.readouterr()
    assert "a: " in shown.err and "must be readable JSON" in shown.err
    assert shown.out.splitlines() == [
        "b: 3 event(s) sent, 10 byte(s) left; not all: the server is down",
        "c: 3 event(s) sent",
    ]
    monkeypatch.setattr(writer, "sync", lambda spool, store, experiment: _report())
    assert _run(monkeypatch, "sync", "b", "--root", str(tmp_path)) == 0


def test_mlflows_variable_is_the_default_of_tracking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def store(tracking: str | None) -> str:
        return tracking_store(Namespace(tracking=tracking, root=Path("results")))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000/")
    assert store(None) == "http://me:secret@host:5000"
    assert capsys.readouterr().out == "Tracking store http://me:***@host:5000, as MLFLOW_TRACKING_URI says.\n"
    assert store("http://other") == "http://other"
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://host")
    for words in (["train", "digits-100"], ["analyse", "x"], ["ordering", "occluded-mnist-table-1"], ["ui"]):
        assert _run(monkeypatch, *words) == 2
        assert "it comes from MLFLOW_TRACKING_URI" in capsys.readouterr().err


def test_sync_has_the_stores_of_the_searches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _begun(tmp_path / "a")
    stores: list[str] = []
    monkeypatch.setattr(writer, "sync", lambda spool, store, experiment: stores.append(store) or _report())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000/")
    assert _run(monkeypatch, "sync", "--root", str(tmp_path)) == 0
    assert _run(monkeypatch, "sync", "--root", str(tmp_path), "--tracking", "http://other") == 0
    assert stores == ["sqlite:///x.db", "http://other"]


def test_nothing_to_sync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run(monkeypatch, "sync", "--root", str(tmp_path)) == 0
    assert "nothing to send" in capsys.readouterr().out


def test_studies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert _run(monkeypatch, "studies") == 0
    out = capsys.readouterr().out
    assert "mnist-100-full" in out and "1.06 % ± 0.37" in out and "(unverified)" in out


def test_reproduce_prints_its_table_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    words = ("reproduce", "digits-100", "digits-50-base", "--seeds", "2", "--epochs", "1", "--root", str(tmp_path))
    assert _run(monkeypatch, *words) == 0
    first = capsys.readouterr().out
    assert "digits-50-base, reduced to 1 epochs" in first and "no paper reports this experiment" in first
    rows = json.loads((tmp_path / "reproductions" / "reproduction.json").read_text())["rows"]
    assert [(row["study"], row["name"], row["n"]) for row in rows] == [
        ("digits-100", "published", 2),
        ("digits-50-base", "published", 2),
    ]
    assert _run(monkeypatch, *words) == 0
    again = capsys.readouterr().out
    assert "cost" in first and "cost" not in again and again[again.index("\n\n") :] == first[first.index("\n\n") :]
    assert _run(monkeypatch, "studies", "--root", str(tmp_path)) == 0
    assert "reduced (2 seeds)" in capsys.readouterr().out
    for names in ([], ["digits-100"], [str(tmp_path / "reproductions")], ["digits-100-reduced-to-1-epochs"]):
        assert _run(monkeypatch, "report", *names, "--root", str(tmp_path), "-o", str(tmp_path / "report")) == 0
        text = (tmp_path / "report" / "report.md").read_text()
        assert ("digits-50-base" in text) == (names in ([], [str(tmp_path / "reproductions")]))
    _begun(tmp_path / "broken")
    (tmp_path / "broken" / "study.json").write_text("{")
    capsys.readouterr()
    assert _run(monkeypatch, "report", "--root", str(tmp_path), "-o", str(tmp_path / "report")) == 0
    assert "left out: " in capsys.readouterr().out
    assert _run(monkeypatch, "report", "broken", "--root", str(tmp_path)) == 2
