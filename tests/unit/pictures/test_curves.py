import matplotlib.text
import pytest

from ladder_search.pictures import canvas, curves, survival
from ladder_search.pictures.trials import Trials
from ladder_search.studies import find_study

WITH_TARGET = find_study("mnist-100-full")  # 1.06 % ± 0.37
UNVERIFIED = find_study("mnist-100-gamma")  # 3.06 % ± 1.44
WITHOUT_TARGET = find_study("digits-100")  # 297 validation examples


def texts_of(picture, label=None):
    """(x, y, text) of the points of one entry of the legend, or of all."""
    return [(x, y, text) for entry, _, x, y, text in picture.texts if label in (None, entry)]


@pytest.fixture
def learning_curves_of(nothing):
    def draw(records, study=WITH_TARGET):
        with canvas.style():
            return curves.learning_curves("t", Trials.of(study, records, nothing()))

    return draw


def test_learning_curves_by_hand(learning_curves_of, trial):
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
    (ax,) = picture.figure.axes
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines) == [
        "stopped early (2)",
        "failed (1)",
        "complete (1)",
        "published (t0000): 2.00 %",
        "best found (t0001): 1.00 %",
        "supervised baseline (t0006): 20.00 %",
    ]
    assert texts_of(picture, "stopped early (2)") == [
        (1, 0.6, "t0003, epoch 1: 60.00 %"), (1, 0.7, "t0004, epoch 1: 70.00 %"), (3, 0.65, "t0004, epoch 3: 65.00 %"),
    ]  # fmt: skip
    best = [list(line.get_ydata()) for line in ax.lines if line.get_label() == "_best found (t0001): 1.00 %"]
    assert best == [[0.4, 0.01]]
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "epoch" and ax.get_ylabel() == "validation error"
    assert {text.get_text() for text in picture.figure.legends[0].get_texts()} == set(lines)
    assert ax.texts[0].get_text() == "target 1.06 % ± 0.37\ntest error"
    (band,) = ax.patches
    assert (band.get_y(), band.get_height(), ax.lines[0].get_ydata()[0]) == pytest.approx((0.0069, 0.0074, 0.0106))


def test_the_target_says_that_it_is_unverified_and_may_be_absent(learning_curves_of, trial):
    (ax,) = learning_curves_of([trial(0)], UNVERIFIED).figure.axes
    assert "3.06 % ± 1.44\n(unverified)" in ax.texts[0].get_text()
    (without,) = learning_curves_of([trial(0)], WITHOUT_TARGET).figure.axes
    assert not without.texts and not without.patches


def test_an_error_of_zero_is_drawn_half_an_example_above_it(learning_curves_of, trial):
    picture = learning_curves_of([trial(0, errors=[0.1, 0.0])], WITHOUT_TARGET)
    assert [y for _, y, _ in texts_of(picture)] == [0.1, 0.5 / 297]
    assert picture.figure.axes[0].get_ylabel() == "validation error (zeros are drawn at 0.17 %)"


@pytest.mark.parametrize(
    ("measure", "errors", "shown", "label", "target"),
    [
        ("nll", [61.0, 8.3], ("61.000 nats per step", "8.300 nats per step"), "NLL, nats per step",
         "target 8.450 nats per step ± 0.030\n(unverified)\ntest NLL"),
        ("prediction_error", [0.007, 0.0015], ("700.0 x 1e-5", "150.0 x 1e-5"), "prediction error, x 1e-5",
         "target 150.1 x 1e-5 ± 0.1\n(unverified)\ntest prediction error"),
    ],
)  # fmt: skip
def test_curves_of_other_measures(measure, errors, shown, label, target, learning_curves_of, judged_by, trial):
    study = judged_by(measure)
    picture = learning_curves_of([trial(0, error=errors[-1], errors=errors)], study)
    (ax,) = picture.figure.axes
    picture.figure.canvas.draw()
    assert ax.get_yscale() == "log" and ax.get_ylabel() == f"validation {label}"
    assert ax.texts[0].get_text() == target
    low, high = ax.get_ylim()
    ticks = [tick.get_text() for tick in ax.get_yticklabels() if low <= tick.get_position()[1] <= high]
    assert len(ticks) > 1 and all(float(tick) > 1 for tick in ticks)
    assert texts_of(picture) == [(n, error, f"t0000, epoch {n}: {shown[n - 1]}") for n, error in enumerate(errors, 1)]
    (band,) = ax.patches
    assert band.get_y() < study.target.error < band.get_y() + band.get_height()
    assert not [text for text in ax.figure.findobj(matplotlib.text.Text) if "%" in text.get_text()]


def test_curves_go_by_updates_where_no_epochs_were_reported(learning_curves_of, trial):
    record = trial(0, errors=[0.5, 0.4])
    for row in record.epochs:
        del row["epoch"]
    assert learning_curves_of([record]).figure.axes[0].get_xlabel() == "update"
    assert [x for x, _, _ in texts_of(learning_curves_of([record]))] == [5, 10]


def test_rung_survival_by_hand(trial, nothing):
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
    lines = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in picture.figure.axes[0].lines
    }
    assert lines == {
        "trials that reached the epoch (10 in all, 2 complete)": ([0, 1, 3, 9], [10, 9, 3, 2]),
        "stopped at a rung (5)": ([1, 3], [3, 2]),
        "failed (3)": ([0, 1, 1], [10, 9, 8]),
    }
    assert texts_of(picture, "stopped at a rung (5)")[0] == (1, 3, "4 stopped after epoch 1")
    assert [text.get_text() for text in picture.figure.axes[0].texts] == ["4 stopped after 1", "1 stopped after 3"]
