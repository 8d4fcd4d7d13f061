"""Bad input at the command line: one sentence, exit code 2, nothing begun and nothing half-written.

The commands run in this process: all of these are refused before Ray starts, which is part of the promise.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

import search
from benchmarks.servers import free_port
from ladder_search import cli
from ladder_search.commands.command_line import run_command
from ladder_search.data.mnist import FILES
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import find_study
from ladder_search.training.checkpoint import write_member
from ladder_search.training.pack import MemberState
from tests.properties.test_fuzz import make_bundle

pytestmark = pytest.mark.e2e

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command in an empty folder; return the one sentence that it was refused with."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, command: Callable[[], int | None] = search.main) -> str:
        before = _files(tmp_path)
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ladder-search", *arguments])
        assert run_command(command) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.endswith(".\n") and told.count("\n") == 1, told
        assert not ray.is_initialized()
        assert _files(tmp_path) == before, "what was refused left something behind"
        return told

    return run


def _files(folder: Path) -> set[Path]:
    """What is in a folder, study folders included and locks of the cache left out."""
    found = {path for path in folder.rglob("*") if path.is_file() or path.parent.name == "results"}
    return {path for path in found if not path.name.endswith(".arrow.lock")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("digits-10", ["unknown study 'digits-10'", "did you mean 'digits-100'"]),
        ("", ["needs a study"]),
        ("digits-100 --trails 4", ["unknown option '--trails'", "'--trials'"]),
        ("digits-100 --trials many", ["--trials", "many"]),
        ("digits-100 --trials 0", ["--trials must be at least 1, got 0"]),
        ("digits-100 --sampler gp", ["unknown sampler 'gp'", "tpe"]),
        ("digits-100 --time-budget nan", ["time_budget must be a finite number", "nan"]),
        ("digits-100 --gpus-per-trial 1.5", ["--gpus-per-trial", "1.5"]),
        ("digits-100 --name ../mine", ["--name must be a plain folder name"]),
        ("digits-100 --tracking ftp://host", ["ftp://host"]),
        ("digits-100 --storage nowhere://x", ["--storage", "nowhere://x"]),
        ("digits-100 --config nothing.yaml", ["--config must be a readable file", "nothing.yaml"]),
        ("digits-100 --set training.rl=1", ["unknown setting 'training.rl'", "'training.lr'"]),
        ("digits-100 --set training.lr", ["name=value"]),
        ("digits-100 --set training.lr=fast", ["training.lr must be a finite number, got 'fast'"]),
        ("digits-100 --set training.lr=.nan", ["training.lr must be a finite number, got nan"]),
        ("digits-100 --set training.lr=-1", ["training.lr must lie in"]),
        ("digits-100 --epochs 0", ["training.epochs"]),
        ("digits-100 --set model.lambda_=1,2", ["model.lambda_ must have one entry per layer 0..6 (7 in all), got 2"]),
        ("digits-100 --set model.noise_std=0.3", ["model.noise_std must be a list"]),
        (
            "digits-50-base --set model.widths=64,50,50,50,50,50,9",
            ["model.widths must start with the 64 pixels and end with the 10"],
        ),
        ("digits-100 --set model.combinator=gaus", ["unknown combinator 'gaus'", "'gauss'"]),
        ("digits-100 --set model.combinator=mlp-0", ["mlp-0"]),
        ("digits-100 --set space.combinators=gauss,gaus", ["unknown combinator 'gaus'", "did you mean 'gauss'"]),
        ("digits-100 --set model.decoder=gamma", ["with model.decoder=gamma only the top layer's weight"]),
        ("digits-100 --set data.labels=2000", ["data.labels=2000 needs 200 labels of each class", "choose at most"]),
        ("digits-100 --set data.labels=101", ["data.labels must be a positive multiple of the 10 classes, got 101"]),
        ("digits-100 --set data.validation=5000", ["data.validation must lie in 0..1296"]),
        ("digits-100 --set data.validation=0", ["data.validation", "set one of them"]),
        ("digits-100 --set data.dataset=mnits", ["unknown data set 'mnits'", "'mnist'"]),
        ("digits-100 --set space.lr=false --set space.noise=fixed --set space.lambda_=fixed", ["something to vary"]),
        ("digits-100 --confirm 2 --set data.labels=50", ["--confirm", "data.labels", "leave one of them out"]),
        ("digits-100 --confirm 2 --epochs 500", ["--epochs shortens a reproduction", "75 epochs, got 500"]),
        ("digits-100 --resume --name nothing", ["nothing"]),
        ("digits-100 --address ray://127.0.0.1:10001", ["--address must be the host:port", "or name host:port"]),
        ("digits-100 --address 127.0.0.1:1", ["--address must name a running Ray cluster", "refused", "ray start"]),
        ("digits-100 --root=$UNSET_HERE/x", ["--root may use only variables that are set", "set it"]),
    ],
)
def test_a_search_that_cannot_be_meant(arguments: str, says: list[str], refused: Refused) -> None:
    told = refused(*arguments.split())
    assert all(part in told for part in says), told


def test_a_root_that_is_a_file_and_a_server_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = refused("digits-100", "--trials", "4", "--root", "file")
    assert "must be writable" in told and "--root" in told
    told = refused("digits-100", "--trials", "4", "--tracking", f"http://me:secret@127.0.0.1:{free_port()}")
    assert "server must be reachable, http://me:***@" in told and "start it" in told and "secret" not in told


def test_a_study_folder_in_use_or_of_another_version(refused: Refused, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "results" / "mine")
    with folder.locked():
        told = refused("digits-100", "--name", "mine")
        assert "one search at a time" in told and "choose another --name" in told
        folder.create({"settings": {"study": "digits-100"}, "store": "sqlite:///x.db"})
    assert "never overwritten" in refused("digits-100", "--name", "mine")
    description = json.loads((folder.path / "study.json").read_text())
    (folder.path / "study.json").write_text(json.dumps({**description, "format": "ladder-search study 0"}))
    assert "use the version that wrote it" in refused("digits-100", "--name", "mine", "--resume")
    (folder.path / "study.json").write_text('{"format": ')
    for command in (["export", "mine"], ["report", "mine"]):
        assert "must be readable JSON" in refused(*command, command=cli._main)


def test_data_that_is_damaged(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in FILES:
        (data / file).write_bytes(b"\0\0\x08\x03 and then nothing of use")
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(data))
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    told = refused("mnist-100-full", "--trials", "2")
    assert "train-images-idx3-ubyte" in told


def test_a_bundle_that_is_damaged_or_has_no_place(refused: Refused, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    weights = tmp_path / "bundle" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert "weights.safetensors must have sha256" in refused("train", "bundle", command=cli._main)
    weights.write_bytes(content)
    assert "model.widths must start with the 64 pixels" in refused("train", "bundle", command=cli._main)
    assert "--seeds" in refused("train", "bundle", "--seeds", "0", command=cli._main)
    assert "nothing" in refused("train", "nothing", command=cli._main)
    (tmp_path / "file").write_text("")
    assert "file/below" in refused("train", "digits-100", "--seeds", "2", "-o", "file/below", command=cli._main)


def test_a_checkpoint_that_is_damaged_or_no_place_for_bundles(refused: Refused, tmp_path: Path) -> None:
    study = make_export(tmp_path / "results" / "mine")
    (tmp_path / "file").write_text("")
    assert "file/below" in refused("export", "mine", "-o", "file/below", command=cli._main)
    assert "--top must be at least 1" in refused("export", "mine", "--top", "0", command=cli._main)
    tensors = study.checkpoints / "x" / "member-0" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    assert "found: tensors with sha256" in refused("export", "mine", command=cli._main)
    shutil.rmtree(study.checkpoints)
    assert "which is missing; copy it back" in refused("export", "mine", command=cli._main)


def make_export(path: Path) -> StudyFolder:
    """A finished trial with its checkpoint."""
    spec = find_study("digits-100").trial()
    network = spec.empty_module()
    params, first, second = ({n: v.detach().clone() for n, v in network.named_parameters()} for _ in range(3))
    member = MemberState(step=10, params=params, first=first, second=second)
    study = StudyFolder(path)
    study.create({"settings": {"study": "digits-100"}, "store": "sqlite:///x.db"})
    write_member(study.checkpoints / "x" / "member-0", member, spec.as_mapping())
    study.write_trial(
        TrialRecord(
            key="t0000", number=0, name="", state="COMPLETE", reason="", params={}, settings=spec.as_mapping(),
            epochs=({"epoch": 1},), validation_error=0.1, seconds=1.0, checkpoint="checkpoints/x",
        )
    )  # fmt: skip
    return study
