import itertools
import re

import pytest

from ladder_search.pictures import canvas, curves, parallel, parameters, survival
from ladder_search.pictures.trials import Trials
from ladder_search.studies import find_study

WITH_TARGET = find_study("mnist-100-full")  # 1.06 % ± 0.37


def one(asked):
    asked.suggest_float("training/lr", 5e-4, 5e-3, log=True)


def words_of(picture):
    """The sentence of a picture that is empty."""
    (ax,) = picture.figure.axes
    return " ".join(ax.texts[0].get_text().split())


def test_empty_pictures_say_why(trial, search, nothing):
    none = Trials.of(WITH_TARGET, [], nothing())
    assert words_of(curves.learning_curves("t", none)) == "No trial has reported a validation error yet."
    assert words_of(survival.rung_survival("t", none)) == "No trial has ended yet."
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", none)) == "No trial of the search has ended yet."

    study, records = search(2, one, stopped={0, 1})
    stopped = Trials.of(WITH_TARGET, records, study)
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", stopped)).startswith("None of the 2 ended trials is complete")

    study, records = search(2, lambda asked: None, lambda params: 0.1)
    for draw in (parameters.slices, parallel.parallel_coordinates):
        assert words_of(draw("t", Trials.of(WITH_TARGET, records, study))).startswith("No parameter was searched")

    failed = Trials.of(WITH_TARGET, [trial(0, "FAIL", None)], nothing())
    assert "first epoch" in words_of(survival.rung_survival("t", failed))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"n": 7}, "needs 8 complete trials, this search has 7"),
        ({"n": 12, "suggest": one}, "only lr was varied"),
        ({"n": 12, "suggest": lambda asked: asked.suggest_float("a", 1, 1), "error": lambda _: 0.1}, "no parameter"),
        ({"n": 12, "error": lambda params: 0.031}, "All 12 complete trials reached 3.10 %"),
    ],
)
def test_an_importance_that_would_be_noise_is_not_drawn(settings, why, search):
    study, records = search(**settings)
    assert why in words_of(parameters.importance("t", Trials.of(WITH_TARGET, records, study)))


def test_the_parameter_that_decides_is_the_most_important(search):
    study, records = search(40)
    picture = parameters.importance("t", Trials.of(WITH_TARGET, records, study))
    (ax,) = picture.figure.axes
    lengths = [bar.get_width() for bar in ax.patches]
    assert ax.get_yticklabels()[0].get_text() == "lr"
    assert lengths == sorted(lengths, reverse=True) and sum(lengths) == pytest.approx(1.0)
    assert picture.texts[0][2:] == (lengths[0], 0, f"lr: {lengths[0]:.4f}")
    # 5 of 40 are 12.5 %
    assert ax.get_xlabel() == "importance for reaching the best 12 % of 40 complete trials (PED-ANOVA)"


def test_slices_show_each_parameter_with_its_choices(search):
    study, records = search(30, stopped={3, 4})
    with canvas.style():
        picture = parameters.slices("t", Trials.of(WITH_TARGET, records, study))
    axes = {ax.get_xlabel(): ax for ax in picture.figure.axes if ax.get_xlabel()}
    assert list(axes) == ["combinator", "hidden", "lr", "noise_input"]
    assert [label.get_text() for label in axes["combinator"].get_xticklabels()] == ["gauss", "mlp-4", "None"]
    assert [ax.get_xscale() for ax in axes.values()] == ["linear", "log", "log", "linear"]
    assert [entry.get_text() for entry in picture.figure.legends[0].get_texts()] == [
        "complete", "published", "best found", "stopped or failed",
    ]  # fmt: skip
    plain, published, best, without = axes["lr"].lines
    assert len(plain.get_xdata()) == 26 and len(without.get_xdata()) == 2
    assert published.get_xdata() == [records[0].params["training/lr"]]
    assert best.get_ydata() == [min(r.validation_error for r in records[1:] if r.state == "COMPLETE")]


def test_parallel_coordinates_emphasise_the_published_and_the_best_trial(search):
    study, records = search(12)
    with canvas.style():
        picture = parallel.parallel_coordinates("t", Trials.of(WITH_TARGET, records, study))
    best = min(records[1:], key=lambda record: record.validation_error)
    named = {line.get_label(): line for line in picture.figure.axes[0].lines if line.get_label()[0] != "_"}
    expected = {
        f"published: {100 * records[0].validation_error:.2f} %": canvas.VERMILION,
        f"best found: {100 * best.validation_error:.2f} %": canvas.BLUE,
    }
    assert {name: line.get_color() for name, line in named.items()} == expected
    assert {text.get_text() for text in picture.figure.legends[0].get_texts()} == set(expected)
    label = f"published: {100 * records[0].validation_error:.2f} %"
    text = next(text for entry, *_, text in picture.texts if entry == label)
    lr = re.fullmatch(r"t0000, published: .*\n.*\blr=(\S+).*", text)[1]
    assert float(lr) == pytest.approx(records[0].params["training/lr"], rel=0.01)
    assert picture.figure.axes[0].get_xticklabels()[1].get_text() == "combinator"
    assert "not used" in {text.get_text() for text in picture.figure.axes[0].texts}


def test_many_parameters_with_long_names_fit(search):
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
            figure = draw("t", trials).figure
            figure.canvas.draw()
            width, height = figure.get_size_inches()
            box = figure.get_tightbbox()
            assert box.x0 >= -0.02 and box.y0 >= -0.02 and box.x1 <= width + 0.02 and box.y1 <= height + 0.02
            for ax in figure.axes:
                boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_rotation() == 0]
                boxes.sort(key=lambda extent: extent.x0)
                assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes)), draw
