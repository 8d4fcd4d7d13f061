import itertools
import json
import re
import warnings

import matplotlib
import matplotlib._pylab_helpers
import optuna
import pytest
from optuna.trial import TrialState

from ladder_search.driver import pictures
from ladder_search.driver.pictures import canvas, curves, draw_all, parallel, parameters, survival
from ladder_search.driver.pictures.trials import Trials
from ladder_search.record import StudyFolder, TrialRecord
from ladder_search.studies import find_study

NAMES = ["learning-curves", "parameter-importance", "slices", "parallel-coordinates", "rung-survival"]
WITH_TARGET = find_study("mnist-100-full")  # 1.06 % ± 0.37
UNVERIFIED = find_study("mnist-100-gamma")  # 3.06 % ± 1.44
WITHOUT_TARGET = find_study("digits-100")  # 297 validation examples


def trial(number, state="COMPLETE", error=0.02, name="", epochs=4, errors=None, params=None):
    """A trial whose error halves from epoch to epoch until it is ``error``, or was ``errors``."""
    if errors is None:
        errors = [] if error is None else [min(1.0, error * 2 ** (epochs - epoch)) for epoch in range(1, epochs + 1)]
    return TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name=name,
        state=state,
        reason="",
        params=params or {},
        settings={},
        epochs=tuple({"epoch": place, "step": 5 * place, "validation_error": e} for place, e in enumerate(errors, 1)),
        validation_error=error,
        seconds=1.0,
        checkpoint=None,
    )


def search(n, suggest, error, *, stopped=(), failed=()):
    """A real Optuna study of ``n`` random suggestions and its records; trial 0 is the published configuration."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    optuna.logging.set_verbosity(verbosity)
    records = []
    for number in range(n):
        asked = study.ask()
        suggest(asked)
        state = "FAIL" if number in failed else "PRUNED" if number in stopped else "COMPLETE"
        value = error(asked.params)
        epochs = {"COMPLETE": 4, "PRUNED": 2, "FAIL": 1}[state]
        study.tell(asked, value if state == "COMPLETE" else None, state=TrialState[state])
        name = "published" if number == 0 else ""
        records.append(trial(number, state, value, name, epochs, params=dict(asked.params)))
    return study, records


def many(asked):
    asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)
    asked.suggest_float("model/noise_input", 0.1, 0.5)
    asked.suggest_categorical("model/combinator", ["gauss", "mlp-4", None])
    if asked.params["model/combinator"] == "gauss":  # a parameter that not every trial has
        asked.suggest_int("model/hidden", 1, 64, log=True)


def lr_decides(params):
    return 0.02 + abs(params["training/lr"] - 0.002)


def one(asked):
    asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)


def nothing():
    return search(0, many, lr_decides)[0]


def text_of(page):
    return " ".join(note.text for note in page.layout.annotations)


def words_of(picture):
    """The sentence of a picture that is empty; the PNG says what the page says."""
    (ax,) = picture.png.axes
    png = " ".join(ax.texts[0].get_text().split())
    assert png == text_of(picture.page).replace("<br>", " ")
    return png


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = StudyFolder(tmp_path_factory.mktemp("study"))
    study, records = search(24, many, lr_decides, stopped={3, 4, 5}, failed={6})
    records.append(trial(24, error=0.2, name="supervised baseline"))
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
    assert sorted(path.name for path in folder.pictures.iterdir()) == sorted(
        [*(p.name for p in paths), "plotly.min.js"]
    )


def test_pages_share_one_script_and_load_nothing_from_elsewhere(drawn):
    for path in drawn[1]:
        if path.suffix == ".html":
            text = path.read_text()
            assert re.findall(r'<script[^>]* src="([^"]*)"', text) == ["plotly.min.js"]
            assert len(text) < 200_000
            assert f"<title>mnist-100-full: {path.stem.replace('-', ' ')}</title>" in text


def test_nothing_is_left_behind(tmp_path, capfd, caplog):
    study, records = search(12, many, lr_decides)
    before = dict(matplotlib.rcParams), optuna.logging.get_verbosity(), study.get_trials()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw_all(StudyFolder(tmp_path), WITHOUT_TARGET, records, study)
    assert (dict(matplotlib.rcParams), optuna.logging.get_verbosity(), study.get_trials()) == before
    assert not matplotlib._pylab_helpers.Gcf.figs
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert not caught


def test_drawing_again_replaces_the_pictures_and_keeps_the_script(tmp_path):
    folder = StudyFolder(tmp_path)
    draw_all(folder, WITH_TARGET, [], nothing())
    first = (folder.pictures / "learning-curves.png").read_bytes()
    written = (folder.pictures / "plotly.min.js").stat().st_mtime_ns
    draw_all(folder, WITH_TARGET, [trial(0)], nothing())
    assert (folder.pictures / "learning-curves.png").read_bytes() != first
    assert (folder.pictures / "plotly.min.js").stat().st_mtime_ns == written


def test_a_defect_in_one_picture_costs_only_that_one(tmp_path, monkeypatch):
    def broken(title, trials):
        raise ZeroDivisionError("of the picture")

    monkeypatch.setitem(pictures._PICTURES, "slices", broken)
    paths = draw_all(StudyFolder(tmp_path), WITH_TARGET, [trial(0)], nothing())
    assert len(paths) == 10
    assert "ZeroDivisionError" in next(p for p in paths if p.name == "slices.html").read_text()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "pictures").write_text("a file in the way")
    with pytest.raises(OSError):
        draw_all(StudyFolder(tmp_path), WITH_TARGET, [], nothing())


@pytest.mark.parametrize("study", [WITH_TARGET, WITHOUT_TARGET], ids=lambda study: study.name)
@pytest.mark.parametrize(
    "records",
    [
        [],
        [trial(9, name="supervised baseline")],
        [trial(0, "FAIL", None, epochs=0), trial(1, "FAIL", float("nan"), errors=[float("nan"), None])],
        [trial(0, "PRUNED"), trial(1, "FAIL", epochs=1)],
        [trial(0, error=0.0, errors=[0.0])],
    ],
    ids=["none", "baseline alone", "no finite error", "none complete", "one, without an error"],
)
def test_searches_with_next_to_nothing_are_drawn(records, study):
    optuna_study = nothing()
    for record in records:
        if not record.name:
            asked = optuna_study.ask()
            one(asked)
            state = TrialState[record.state]
            optuna_study.tell(asked, record.validation_error if state == TrialState.COMPLETE else None, state=state)
    trials = Trials.of(study, records, optuna_study)
    with canvas.style():
        for draw in pictures._PICTURES.values():
            picture = draw("title", trials)
            picture.png.canvas.draw()
            json.loads(picture.page.to_json())


def test_empty_pictures_say_why():
    none = Trials.of(WITH_TARGET, [], nothing())
    assert words_of(curves.learning_curves("t", none)) == "No trial has reported a validation error yet."
    assert words_of(survival.rung_survival("t", none)) == "No trial has ended yet."
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", none)) == "No trial of the search has ended yet."

    study, records = search(2, one, lr_decides, stopped={0, 1})
    stopped = Trials.of(WITH_TARGET, records, study)
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", stopped)).startswith("None of the 2 ended trials is complete")

    study, records = search(2, lambda asked: None, lambda params: 0.1)
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", Trials.of(WITH_TARGET, records, study))).startswith("No parameter was searched")

    failed = Trials.of(WITH_TARGET, [trial(0, "FAIL", None)], nothing())
    assert "first epoch" in words_of(survival.rung_survival("t", failed))


@pytest.mark.parametrize(
    ("n", "suggest", "error", "why"),
    [
        (7, many, lr_decides, "needs 8 complete trials, this search has 7"),
        (12, one, lr_decides, "only lr was varied"),
        (12, lambda asked: asked.suggest_float("a", 1, 1), lambda params: 0.1, "no parameter was varied"),
        (12, many, lambda params: 0.031, "All 12 complete trials reached 3.10 %"),
    ],
)
def test_an_importance_that_would_be_noise_is_not_drawn(n, suggest, error, why):
    study, records = search(n, suggest, error)
    assert why in words_of(parameters.importance("t", Trials.of(WITH_TARGET, records, study)))


def test_the_parameter_that_decides_is_the_most_important():
    study, records = search(40, many, lr_decides)
    picture = parameters.importance("t", Trials.of(WITH_TARGET, records, study))
    (ax,) = picture.png.axes
    lengths = [bar.get_width() for bar in ax.patches]
    assert ax.get_yticklabels()[0].get_text() == "lr"
    assert lengths == sorted(lengths, reverse=True) and sum(lengths) == pytest.approx(1.0)
    assert dict(zip(picture.page.data[0].y, picture.page.data[0].x, strict=True))["lr"] == lengths[0]
    # 5 of 40 are 12.5 %
    assert ax.get_xlabel() == "importance for reaching the best 12 % of 40 complete trials (PED-ANOVA)"


def learning_curves_of(records, study=WITH_TARGET):
    with canvas.style():
        return curves.learning_curves("t", Trials.of(study, records, nothing()))


def test_learning_curves_by_hand():
    picture = learning_curves_of(
        [
            trial(0, name="published", errors=[0.5, 0.02]),
            trial(1, error=0.01, errors=[0.4, 0.01]),
            trial(2, error=0.03, errors=[0.4, 0.03]),
            trial(3, "PRUNED", errors=[0.6]),
            trial(4, "PRUNED", errors=[0.7, float("nan"), 0.65]),
            trial(5, "FAIL", errors=[0.9]),
            trial(6, name="supervised baseline", error=0.2, errors=[0.3, 0.2]),
        ]
    )
    traces = {trace.name: trace for trace in picture.page.data if trace.name}
    assert list(traces) == [
        "stopped early (2)",
        "failed (1)",
        "complete (1)",
        "published (t0000): 2.00 %",
        "best found (t0001): 1.00 %",
        "supervised baseline (t0006): 20.00 %",
    ]
    assert traces["stopped early (2)"].x == (1, None, 1, 3, None)
    assert traces["stopped early (2)"].y == (0.6, None, 0.7, 0.65, None)
    assert traces["stopped early (2)"].text == (
        "t0003, epoch 1: 60.00 %", "", "t0004, epoch 1: 70.00 %", "t0004, epoch 3: 65.00 %", "",
    )  # fmt: skip
    assert traces["best found (t0001): 1.00 %"].y == (0.4, 0.01, None)
    (ax,) = picture.png.axes
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "epoch" and ax.get_ylabel() == "validation error"
    assert {text.get_text() for text in picture.png.legends[0].get_texts()} == set(traces)
    assert ax.texts[0].get_text() == "target 1.06 % ± 0.37\ntest error"
    band, line = picture.page.layout.shapes
    assert (band.y0, band.y1, line.y0) == (pytest.approx(0.0069), pytest.approx(0.0143), 0.0106)


def test_the_target_says_that_it_is_unverified_and_may_be_absent():
    assert "3.06 % ± 1.44<br>(unverified)" in text_of(learning_curves_of([trial(0)], UNVERIFIED).page)
    without = learning_curves_of([trial(0)], WITHOUT_TARGET)
    assert not without.page.layout.annotations and not without.page.layout.shapes and not without.png.axes[0].texts


def test_an_error_of_zero_is_drawn_half_an_example_above_it():
    picture = learning_curves_of([trial(0, errors=[0.1, 0.0])], WITHOUT_TARGET)
    assert picture.page.data[-1].y == (0.1, round(0.5 / 297, 6), None)
    assert picture.png.axes[0].get_ylabel() == "validation error (none is drawn at 0.17 %)"


def test_curves_go_by_updates_where_no_epochs_were_reported():
    record = trial(0, errors=[0.5, 0.4])
    for row in record.epochs:
        del row["epoch"]
    assert learning_curves_of([record]).png.axes[0].get_xlabel() == "update"
    assert learning_curves_of([record]).page.data[-1].x == (5, 10, None)


def test_rung_survival_by_hand():
    records = [trial(n, epochs=9) for n in range(2)]
    records += [trial(n, "PRUNED", epochs=1) for n in range(2, 6)]
    records += [
        trial(6, "PRUNED", epochs=3),
        trial(7, "FAIL", epochs=1),
        trial(8, "FAIL", None),
        trial(9, "FAIL", epochs=1),
    ]
    records += [trial(10, name="supervised baseline", epochs=30)]  # of another study
    with canvas.style():
        picture = survival.rung_survival("t", Trials.of(WITH_TARGET, records, nothing()))
    line, stopped, failed = picture.page.data
    assert (line.x, line.y) == ((0, 1, 3, 9), (10, 9, 3, 2))
    assert (stopped.x, stopped.y) == ((1, 3), (3, 2))
    assert (failed.x, failed.y) == ((0, 1, 1), (10, 9, 8))
    assert line.name == "trials that reached the epoch (10 in all, 2 complete)"
    assert (stopped.name, failed.name) == ("stopped at a rung (5)", "failed (3)")
    assert [text.get_text() for text in picture.png.axes[0].texts] == ["4 stopped after 1", "1 stopped after 3"]


def test_slices_show_each_parameter_with_its_choices():
    study, records = search(30, many, lr_decides, stopped={3, 4})
    with canvas.style():
        picture = parameters.slices("t", Trials.of(WITH_TARGET, records, study))
    axes = {ax.get_xlabel(): ax for ax in picture.png.axes if ax.get_xlabel()}
    assert list(axes) == ["combinator", "hidden", "lr", "noise_input"]
    assert [label.get_text() for label in axes["combinator"].get_xticklabels()] == ["gauss", "mlp-4", "None"]
    assert [ax.get_xscale() for ax in axes.values()] == ["linear", "log", "log", "linear"]
    assert [entry.get_text() for entry in picture.png.legends[0].get_texts()] == [
        "complete", "published", "best found", "stopped or failed",
    ]  # fmt: skip
    plain, published, best, without = axes["lr"].lines
    assert len(plain.get_xdata()) == 26 and len(without.get_xdata()) == 2
    assert published.get_xdata() == [records[0].params["training/lr"]]
    assert best.get_ydata() == [min(r.validation_error for r in records[1:] if r.state == "COMPLETE")]


def test_parallel_coordinates_emphasise_the_published_and_the_best_trial():
    study, records = search(12, many, lr_decides)
    with canvas.style():
        picture = parallel.parallel_coordinates("t", Trials.of(WITH_TARGET, records, study))
    best = min(records[1:], key=lambda record: record.validation_error)
    named = {trace.name: trace for trace in picture.page.data if trace.name}
    expected = {
        f"published: {100 * records[0].validation_error:.2f} %": canvas.VERMILION,
        f"best found: {100 * best.validation_error:.2f} %": canvas.BLUE,
    }
    assert {name: trace.line.color for name, trace in named.items()} == expected
    assert {text.get_text() for text in picture.png.legends[0].get_texts()} == set(expected)
    published = named[f"published: {100 * records[0].validation_error:.2f} %"]
    lr = next(text for label, text in published.customdata if label == "lr")
    assert float(lr) == pytest.approx(records[0].params["training/lr"], rel=0.01)
    assert picture.png.axes[0].get_xticklabels()[1].get_text() == "combinator"
    assert "not used" in {text.get_text() for text in picture.png.axes[0].texts}


def test_many_parameters_with_long_names_fit():
    def suggest(asked):
        for layer in range(12):
            asked.suggest_float(f"model/corruption_noise_standard_deviation_of_layer_{layer}", 0.001, 1, log=True)
        asked.suggest_categorical(
            "model/activation_function_of_the_hidden_layers", ["rectifier", "leaky_rectifier_0.1"]
        )

    study, records = search(
        12, suggest, lambda params: 0.02 + 0.1 * sum(v for v in params.values() if isinstance(v, float))
    )
    trials = Trials.of(WITH_TARGET, records, study)
    with canvas.style():
        for draw in (parameters.importance, parameters.slices, parallel.parallel_coordinates):
            figure = draw("t", trials).png
            figure.canvas.draw()
            width, height = figure.get_size_inches()
            box = figure.get_tightbbox()
            assert box.x0 >= -0.02 and box.y0 >= -0.02 and box.x1 <= width + 0.02 and box.y1 <= height + 0.02
            for ax in figure.axes:
                boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_rotation() == 0]
                boxes.sort(key=lambda extent: extent.x0)
                assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes)), draw


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path):
    study, records = search(
        9, lambda asked: asked.suggest_float("model/$x_{1$", 1, 2), lambda params: params["model/$x_{1$"] / 9
    )
    paths = draw_all(StudyFolder(tmp_path), WITH_TARGET, records, study)
    assert not [path for path in paths if path.suffix == ".html" and "could not be drawn" in path.read_text()]


@pytest.mark.parametrize(
    ("low", "high", "most", "letters", "ticks"),
    [
        (1, 1000, 5, 20, [1, 10, 100, 1000]),
        (3, 2000, 5, 20, [10, 100, 1000]),
        (90, 5100, 6, 21, [100, 200, 500, 1000, 2000, 5000]),
        (90, 5100, 6, 20, [100, 300, 1000, 3000]),
        (0.00133, 0.0042, 5, 30, [0.0015, 0.002, 0.003, 0.004]),
        (7.1, 7.9, 5, 20, [7.1, 7.9]),
        (5, 5, 5, 20, [5]),
    ],
)
def test_log_ticks(low, high, most, letters, ticks):
    assert canvas.log_ticks(low, high, most=most, letters=letters) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("lr", 10, ["lr"]),
        ("noise_std_input", 14, ["noise_std_", "input"]),
        ("model/lambda_2..6", 10, ["model/", "lambda_2..", "6"]),
        ("abcdefghijklm", 5, ["abcde", "fghij", "klm"]),
        ("", 5, []),
    ],
)
def test_wrapped(name, width, lines):
    assert canvas.wrapped(name, width) == "\n".join(lines)
    assert canvas.wrapped(name, width, newline="<br>") == "<br>".join(lines)


def test_lines_are_thinned_when_they_are_many():
    assert [canvas.thinned(lines) for lines in (0, 1, 40, 160, 10_000)] == [1.0, 1.0, 1.0, 0.5, 0.3]
