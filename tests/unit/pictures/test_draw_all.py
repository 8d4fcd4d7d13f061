import re
import warnings

import matplotlib
import matplotlib._pylab_helpers
import optuna
import pytest
from optuna.trial import TrialState

from ladder_search import pictures
from ladder_search.pictures import canvas, draw_all
from ladder_search.pictures.trials import Trials
from ladder_search.record.folder import StudyFolder
from ladder_search.studies import find_study

NAMES = ["learning-curves", "parameter-importance", "slices", "parallel-coordinates", "rung-survival"]
WITH_TARGET = find_study("mnist-100-full")  # 1.06 % ± 0.37
WITHOUT_TARGET = find_study("digits-100")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, trial, search):
    folder = StudyFolder(tmp_path_factory.mktemp("study"))
    study, records = search(24, stopped={3, 4, 5}, failed={6})
    records.append(trial(1, error=0.2, name="supervised baseline"))
    return folder, draw_all(folder, WITH_TARGET, records, study)


def test_every_picture_is_written_twice(drawn):
    folder, paths = drawn
    assert [path.relative_to(folder.pictures).name for path in paths] == [
        f"{name}.{kind}" for name in NAMES for kind in ("png", "html")
    ]
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG") and len(content) > 10_000
        else:
            assert b"could not be drawn" not in content
    assert sorted(path.name for path in folder.pictures.iterdir()) == sorted(path.name for path in paths)


def test_pages_load_nothing_from_elsewhere(drawn):
    for path in drawn[1]:
        if path.suffix == ".html":
            text = path.read_text()
            assert not re.search(r'(src|href)="(?!#|data:)', text)
            assert len(text) < 200_000
            assert f"<title>mnist-100-full: {path.stem.replace('-', ' ')}</title>" in text


def test_nothing_is_left_behind(tmp_path, capfd, caplog, search):
    study, records = search(12)
    before = dict(matplotlib.rcParams), optuna.logging.get_verbosity(), study.get_trials()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw_all(StudyFolder(tmp_path), WITHOUT_TARGET, records, study)
    assert (dict(matplotlib.rcParams), optuna.logging.get_verbosity(), study.get_trials()) == before
    assert not matplotlib._pylab_helpers.Gcf.figs
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert not caught


def test_drawing_again_replaces_the_pictures(tmp_path, trial, nothing):
    folder = StudyFolder(tmp_path)
    draw_all(folder, WITH_TARGET, [], nothing())
    first = (folder.pictures / "learning-curves.png").read_bytes()
    draw_all(folder, WITH_TARGET, [trial(0)], nothing())
    assert (folder.pictures / "learning-curves.png").read_bytes() != first


def test_a_defect_in_one_picture_costs_only_that_one(tmp_path, monkeypatch, trial, nothing):
    def broken(title, trials):
        raise ZeroDivisionError("of the picture")

    monkeypatch.setitem(pictures._PICTURES, "slices", broken)
    paths = draw_all(StudyFolder(tmp_path), WITH_TARGET, [trial(0)], nothing())
    assert len(paths) == 10
    assert "ZeroDivisionError" in next(p for p in paths if p.name == "slices.html").read_text()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, nothing):
    (tmp_path / "pictures").write_text("a file in the way")
    with pytest.raises(OSError):
        draw_all(StudyFolder(tmp_path), WITH_TARGET, [], nothing())


@pytest.mark.parametrize("study", [WITH_TARGET, WITHOUT_TARGET], ids=lambda study: study.name)
@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"name": "supervised baseline"}],
        [{"state": "FAIL", "error": None}, {"state": "FAIL", "error": float("nan"), "errors": [float("nan"), None]}],
        [{"state": "PRUNED"}, {"state": "FAIL", "epochs": 1}],
        [{"error": 0.0, "errors": [0.0]}],
    ],
    ids=["none", "baseline alone", "no finite error", "none complete", "one, without an error"],
)
def test_searches_with_next_to_nothing_are_drawn(records, study, trial, nothing):
    records = [trial(number, **fields) for number, fields in enumerate(records)]
    optuna_study = nothing()
    for record in records:
        if not record.name:
            asked = optuna_study.ask()
            asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)
            state = TrialState[record.state]
            optuna_study.tell(asked, record.validation_error if state == TrialState.COMPLETE else None, state=state)
    trials = Trials.of(study, records, optuna_study)
    with canvas.style():
        for draw in pictures._PICTURES.values():
            picture = draw("title", trials)
            picture.figure.canvas.draw()
            assert f"<title>{picture.title}</title>" in picture.page()


@pytest.mark.parametrize(("measure", "least"), [("nll", 8.3), ("prediction_error", 0.0014)])
def test_other_measures_are_no_percentages(measure, least, judged_by, search):
    drawn, records = search(24, error=lambda params: least * (1 + 100 * params["training/lr"]), stopped={3}, failed={6})
    trials = Trials.of(judged_by(measure), records, drawn)
    label = trials.study.measure.label
    with canvas.style():
        found = {name: draw("title", trials) for name, draw in pictures._PICTURES.items()}
        for picture in found.values():
            picture.figure.canvas.draw()
    assert found["slices"].figure.get_supylabel() == f"validation {label}"
    assert found["parallel coordinates"].figure.axes[-1].get_ylabel() == f"validation {label}"
    best = min(record.validation_error for record in records[1:] if record.state == "COMPLETE")
    names = {entry for entry, *_ in found["parallel coordinates"].texts}
    assert f"best found: {trials.study.measure.text(best)}" in names
    for name in ("slices", "parallel coordinates"):
        texts = [text.get_text() for text in found[name].figure.findobj(matplotlib.text.Text)]
        assert not [text for text in (*texts, *(point[-1] for point in found[name].texts)) if "%" in text]


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path, search):
    study, records = search(
        9, lambda asked: asked.suggest_float("model/$x_{1$", 1, 2), lambda params: params["model/$x_{1$"] / 9
    )
    paths = draw_all(StudyFolder(tmp_path), WITH_TARGET, records, study)
    assert not [path for path in paths if path.suffix == ".html" and "could not be drawn" in path.read_text()]
