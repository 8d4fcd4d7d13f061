"""The command line of ``search.py``: what it means, and every mistake as one sentence with the remedy."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ladder_search.commands.command_line import run_command
from ladder_search.commands.search import parse_arguments
from ladder_search.config import as_mapping
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import LadderSearchError
from ladder_search.record.folder import StudyFolder
from ladder_search.studies import STUDIES


@pytest.fixture(autouse=True)
def _no_standing_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LADDER_SEARCH_OPTIONS", raising=False)


def test_a_study_is_enough() -> None:
    settings = parse_arguments(["digits-100"])
    assert settings == SearchSettings(study="digits-100")
    assert (settings.trials, settings.sampler, settings.scheduler, settings.root) == (24, "tpe", "asha", "results")


def test_every_option_is_read() -> None:
    line = (
        "mnist-100-full --trials 64 --draws 3 --seed 7 --label-seed 8 --sampler cma-es --scheduler pbt "
        "--max-concurrent 4 --slots 2 --cpus-per-trial 0.5 --gpus-per-trial 0.25 --time-budget 3600 --compile off "
        "--epochs 10 --set training.lr=1e-3 --set model.combinator=vanilla --address auto --root r --name n.1 "
        "--tracking http://h:5000 --offline --storage s3://b"
    )
    assert parse_arguments(line.split()) == SearchSettings(
        study="mnist-100-full", trials=64, draws=3, seed=7, label_seed=8, sampler="cma-es", scheduler="pbt",
        max_concurrent=4, slots=2, cpus_per_trial=0.5, gpus_per_trial=0.25, time_budget=3600.0, compile="off",
        epochs=10, overrides={"training": {"lr": 0.001}, "model": {"combinator": "vanilla"}}, address="auto",
        root="r", name="n.1", tracking="http://h:5000", offline=True, storage="s3://b",
    )  # fmt: skip


def test_overrides_and_epochs_reach_the_study() -> None:
    settings = parse_arguments(
        ["digits-100", "--epochs", "7", "--set", "training.epochs=5", "--set", "training.lr=0.001"]
    )
    study = settings.resolved_study()
    assert (study.training.epochs, study.training.lr) == (7, 0.001)


def test_values_survive_an_unquoted_command_line() -> None:
    """``ray submit`` joins the arguments with spaces: what a shell then makes of them must be the same."""
    arguments = [
        "digits-100", "--set", "model.lambda_=1000,10,0.1,0.1,0.1,0.1,0.1", "--set", "space.combinators=gauss,mlp-4",
        "--set", "space.noise=per-layer", "--name", "a_b-1.2+3", "--set", "data.labels=null",
    ]  # fmt: skip
    line = " ".join(arguments)
    assert shlex.split(line) == arguments and not set(line) & set("'\"\\$`*?[]{}()<>|&;!#~")
    study = parse_arguments(arguments).resolved_study()
    assert study.model.lambda_ == (1000.0, 10.0, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert study.space.combinators == ("gauss", "mlp-4")
    assert study.data.labels is None
    assert parse_arguments(["digits-100", "--set", "space.combinators=gauss,"]).resolved_study().space.combinators == (
        "gauss",
    )


def test_the_later_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "study: digits-50\ntrials: 5\nsampler: random\nlabel-seed: 3\ngpus-per-trial: 0.5\n"
        "set:\n  training: {lr: 0.004, epochs: 9}\n"
    )
    read = parse_arguments(["--config", str(file)])
    assert (read.study, read.trials, read.sampler, read.label_seed) == ("digits-50", 5, "random", 3)
    assert read.overrides == {"training": {"lr": 0.004, "epochs": 9}}
    monkeypatch.setenv("LADDER_SEARCH_OPTIONS", "--sampler cma-es --trials 6 --address auto")
    read = parse_arguments(["digits-100", "--config", str(file), "--trials", "7", "--set", "training.lr=0.001"])
    assert (read.study, read.trials, read.sampler, read.address) == ("digits-100", 7, "cma-es", "auto")
    assert read.overrides == {"training": {"lr": 0.001, "epochs": 9}} and read.gpus_per_trial == 0.5


MISTAKES = [
    ("", "needs a study"),
    ("digits-10", "did you mean 'digits-100'"),
    ("digits-100 extra", "unrecognized arguments: extra"),
    ("digits-100 --trails 3", "did you mean '--trials'"),
    ("digits-100 --trial 3", "did you mean '--trials'"),
    ("digits-100 --trials", "expected one argument"),
    ("digits-100 --trials 0", "--trials must be at least 1, got 0"),
    ("digits-100 --trials two", "--trials must be a whole number, got 'two'"),
    ("digits-100 --draws 0", "--draws must be at least 1"),
    ("digits-100 --slots -1", "--slots must be at least 1"),
    ("digits-100 --slots many", "--slots must be a whole number or auto, got 'many'"),
    ("digits-100 --max-concurrent 0", "--max-concurrent must be at least 1"),
    ("digits-100 --seed -1", "--seed must lie in"),
    ("digits-100 --seed 4294967296", "--seed must lie in"),
    ("digits-100 --cpus-per-trial 0", "--cpus-per-trial must lie in"),
    ("digits-100 --gpus-per-trial 1.5", "whole number, got 1.5"),
    ("digits-100 --gpus-per-trial 3 --slots 2", "whole number, got 1.5"),
    ("digits-100 --gpus-per-trial nan", "must be a finite number"),
    ("digits-100 --time-budget 0", "--time-budget must lie in"),
    ("digits-100 --epochs 0", "training.epochs must be at least 1"),
    ("digits-100 --sampler tep", "did you mean 'tpe'"),
    ("digits-100 --scheduler hyperband", "Known: asha, fifo, pbt"),
    ("digits-100 --compile maybe", "Known: auto, off, on"),
    ("digits-100 --name a/b", "plain folder name, got 'a/b'"),
    ("digits-100 --name ..", "plain folder name"),
    ("digits-100 --name -x", "expected one argument"),
    ("digits-100 --set lr", "given as name=value"),
    ("digits-100 --set =3", "given as name=value"),
    ("digits-100 --set lr=3", "Known: data, model, sources, space, stop, teacher, training"),
    ("digits-100 --set training.Lr=3", "did you mean 'training.lr'"),
    ("digits-100 --set training.lr=fast", "must be a finite number, got 'fast'"),
    ("digits-100 --set training.lr=.nan", "must be a finite number"),
    ("digits-100 --set training.lr=3", "training.lr must lie in [0, 1]"),
    ("digits-100 --set training=3", "write training.NAME=VALUE"),
    ("digits-100 --set model.lambda_=1000,10", "give 7 numbers"),
    ("digits-100 --set model.noise_std=0.3,0.3,0.3,0.3,0.3,0.3,.nan", "model.noise_std[6] must be a finite number"),
    ("digits-100 --set model.combinator=gaus", "did you mean 'gauss'"),
    ("digits-100 --set model.lateral=yes", "model.lateral must be true or false"),
    ("digits-100 --set training.lr=0.1 --set training.lr=0.2", "given twice"),
    ("digits-100 --set data.dataset=mnits", "did you mean 'mnist'"),
    ("digits-100 --set stop.first_rung_steps=0", "must be at least 1"),
    ("digits-100 --trials 20000 --slots 20000", "at least 0.0001 of a resource, got --cpus-per-trial 1 over 20000"),
    ("digits-100 --trials 2 --slots 64 --gpus-per-trial 3", "must be a fraction below 1 or a whole number, got 1.5"),
    ("digits-100 --config nowhere.yaml", "--config must be a readable file"),
]  # fmt: skip


def _one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    def command() -> None:
        parse_arguments(arguments)

    assert run_command(command) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert shown.err.rstrip().endswith(".")
    return shown.err


@pytest.mark.parametrize(("line", "expected"), MISTAKES, ids=[line or "nothing" for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in _one_sentence(line.split(), capsys)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must hold settings"),
        (b"- trials\n", "holds list"),
        (b"trials: [", "readable as YAML"),
        (b"trials: 3\ntrials: 4\n", "a key is given twice"),
        (b"\xff\xfe\x00", "must be a readable file"),
        (b"trails: 3\n", "did you mean 'trials'"),
        (b"trials: many\n", "trials must be a whole number, got 'many'"),
        (b"set: [training.lr=0.1]\n", "must hold groups of settings"),
        (b"overrides: 3\n", "must hold groups of settings"),
        (b"set: {training: {rl: 3}}\n", "did you mean 'training.lr'"),
        (b"study: 5\n", "study must be text"),
        (b"config: other.yaml\n", "unknown setting 'config'"),
        (b"definition: {}\n", "write study: NAME.yaml"),
    ],
)
def test_a_bad_file_is_one_sentence(
    content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "search.yaml"
    file.write_bytes(content)
    arguments = ["--config", str(file)] if b"study" in content else ["digits-100", "--config", str(file)]
    assert expected in _one_sentence(arguments, capsys)


def test_open_quotes_in_the_standing_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LADDER_SEARCH_OPTIONS", '--name "x')
    assert "LADDER_SEARCH_OPTIONS" in _one_sentence(["digits-100"], capsys)


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("trials", "set", "config", "address", "storage", "time-budget"))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A root folder with one search in it."""
    settings = as_mapping(parse_arguments(["digits-100", "--trials", "8", "--epochs", "20", "--seed", "3"]))
    StudyFolder(tmp_path / "first").create({"settings": settings, "store": "sqlite:///x"})
    return tmp_path


def _resumed(root: Path, *arguments: str) -> SearchSettings:
    return parse_arguments([*arguments, "--resume", "--root", str(root)])


@pytest.mark.parametrize("named", [["digits-100"], ["--name", "first"], ["digits-100", "--name", "first"]])
def test_a_resumed_search_has_the_settings_it_was_begun_with(named: list[str], begun: Path) -> None:
    assert _resumed(begun, *named) == SearchSettings(
        study="digits-100", trials=8, epochs=20, seed=3, root=str(begun), name="first", resume=True
    )


def test_what_does_not_bear_on_results_may_change_and_a_search_may_grow(begun: Path) -> None:
    line = (
        "--name first --trials 9 --max-concurrent 2 --slots 2 --cpus-per-trial 2 --gpus-per-trial 0 --time-budget 60 "
        "--compile off --address auto --tracking http://h:5000 --seed 3 --epochs 20"
    )
    settings = _resumed(begun, *line.split())
    assert (settings.trials, settings.slots, settings.compile, settings.epochs) == (9, 2, "off", 20)
    later = {**as_mapping(settings), "trials": 12}
    folder = StudyFolder(begun / "first")
    folder.describe({**folder.description(), "resumed": [{"settings": later}]})
    assert _resumed(begun, "--name", "first").trials == 12


def test_places_in_the_results_folder_are_found_where_it_was_moved_to(tmp_path: Path) -> None:
    settings = as_mapping(parse_arguments(["digits-100"]))
    settings |= {"tracking": "sqlite:///{root}/mlflow.db", "storage": "{root}/checkpoints"}
    StudyFolder(tmp_path / "old" / "first").create({"settings": settings, "store": settings["tracking"]})
    root = (tmp_path / "old").rename(tmp_path / "new")
    for more in ([], ["--storage", str(root / "checkpoints")]):
        resumed = _resumed(root, "--name", "first", *more)
        assert (resumed.tracking, resumed.storage) == (f"sqlite:///{root}/mlflow.db", f"{root}/checkpoints")
    with pytest.raises(LadderSearchError, match="--storage of .* is .*new/checkpoints, got .*elsewhere"):
        _resumed(root, "--name", "first", "--storage", "elsewhere")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--name first --seed 4", "--seed of FOLDER is 3, got 4; leave it out or start a new search."),
        ("--name first --sampler random", "--sampler of FOLDER is tpe, got random"),
        ("--name first --label-seed 2", "--label-seed of FOLDER is 1, got 2"),
        ("--name first --storage s3://b", "--storage of FOLDER is None, got s3://b"),
        ("mnist-100-full --name first", "study of FOLDER is digits-100, got mnist-100-full"),
        ("--name first --trials 7", "--trials of FOLDER is 8, got 7; leave it out or give more."),
        ("--name second", "holds no study"),
        ("mnist-100-full", "there are first"),
        ("", "--resume needs a study or a --name"),
    ],
)
def test_what_cannot_be_resumed_is_said_in_one_sentence(line: str, words: str, begun: Path) -> None:
    with pytest.raises(LadderSearchError) as refused:
        _resumed(begun, *line.split())
    assert words.replace("FOLDER", str(begun / "first")) in str(refused.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A study file, and a root folder with one search of it."""
    (tmp_path / "mine.yaml").write_text("based_on: digits-100\ntraining: {epochs: 9}\n")
    settings = as_mapping(parse_arguments([str(tmp_path / "mine.yaml"), "--root", str(tmp_path)]))
    StudyFolder(tmp_path / "first").create({"settings": settings, "store": "sqlite:///x"})
    return tmp_path


def test_a_study_file_becomes_part_of_the_settings(own: Path) -> None:
    settings = parse_arguments([str(own / "mine.yaml"), "--set", "training.lr=0.001"])
    study = settings.resolved_study()
    assert (settings.study, study.name, study.training.epochs, study.training.lr) == ("mine", "mine", 9, 0.001)
    assert settings.definition is not None and settings.definition["training"]["lr"] == 0.002


def test_a_search_by_the_name_of_a_file_needs_only_the_study_folder(own: Path) -> None:
    (own / "mine.yaml").unlink()
    settings = parse_arguments(["mine", "--root", str(own)])
    assert settings.resolved_study().training.epochs == 9 and not settings.resume
    assert _resumed(own, "mine").resolved_study() == settings.resolved_study()
    with pytest.raises(LadderSearchError, match=r"unknown study 'mine'"):
        parse_arguments(["mine", "--root", str(own / "elsewhere")])


def test_a_resume_by_the_file_needs_the_same_content(own: Path) -> None:
    assert _resumed(own, str(own / "mine.yaml")).name == "first"
    (own / "mine.yaml").write_text("based_on: digits-100\ntraining: {epochs: 10}\n")
    with pytest.raises(LadderSearchError, match=r"in .*mine\.yaml training\.epochs was 9 and is now 10; resume by"):
        _resumed(own, str(own / "mine.yaml"))
    assert _resumed(own, "--name", "first").resolved_study().training.epochs == 9
    (own / "other.yaml").write_text("based_on: digits-100\n")
    with pytest.raises(LadderSearchError, match=r"study of .*first is mine, got other"):
        _resumed(own, str(own / "other.yaml"), "--name", "first")


def test_more_slots_than_trials_ask_for_no_smaller_share() -> None:
    assert parse_arguments(["digits-100", "--trials", "2", "--slots", "20000"]).slots == 20000


def test_resources_that_are_left_open_are_what_the_family_requests() -> None:
    request = STUDIES["occluded-mnist-half-rladder"].trial().request()
    assert (request.cpus, request.gpus) == (1.0, 0.125)
    auto = parse_arguments(["occluded-mnist-half-rladder", "--gpus-per-trial", "auto"])
    assert [auto.resolved(request, has_gpus=there).gpus for there in (True, False)] == [0.125, 0.125]
    plain = parse_arguments(["occluded-mnist-half-rladder"])
    assert [plain.resolved(request, has_gpus=there).gpus for there in (True, False)] == [0.125, 0.0]
    assert plain.resolved(request, has_gpus=True).cpus == 1.0
    options = ["--gpus-per-trial", "0.5", "--cpus-per-trial", "2", "--address", "local"]
    set_by_options = parse_arguments(["mnist-100-full", *options])
    resolved = set_by_options.resolved(request, has_gpus=True)
    assert (resolved.cpus, resolved.gpus) == (2.0, 0.5) and resolved.address_from == set_by_options.address_from
