"""``ladder_search.search`` without Ray: what it refuses, the file of its arrays, and its rows."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import ray

from ladder_search import programs
from ladder_search.console.live import View, live
from ladder_search.console.notebook import NotebookConsole, in_notebook
from ladder_search.errors import LadderSearchError
from ladder_search.programs import Search, search

ROWS = np.random.default_rng(0).normal(size=(60, 3)).round(3)
CLASSES = np.array(["a", "b"], object)[np.arange(60) % 2]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "settings", "what"),
    [
        (("mine", ROWS, None), {}, "needs classes of labelled rows, got no y"),
        (("mine", None, CLASSES), {}, "belong to rows, got no X"),
        (("mine", ROWS, CLASSES[:9]), {}, "one entry per row, got 9 for 60 rows"),
        (("mine", ROWS, CLASSES), {"unlabelled": ROWS[:, :2]}, "must have the 3 columns of X, got 2"),
        (("mine", ROWS * np.nan, CLASSES), {}, "Input X contains NaN"),
        (("mine.yaml", ROWS, CLASSES), {}, "needs a name, got the file mine.yaml"),
        (("digits-100", ROWS, CLASSES), {}, "must not be that of a built-in study"),
        (("mine", ROWS, CLASSES), {"confirm": 3}, "confirm is an option of search.py"),
        (("mine", ROWS, CLASSES), {"settings": {"model": {"noise": 1}}}, "did you mean 'model.noise_std'"),
        (("mine", ROWS, CLASSES), {"trial": 3}, "did you mean 'trials'"),
        (("mine", ROWS, CLASSES), {"trials": 0}, "--trials must be at least 1"),
        (("no-such-study",), {}, "unknown study 'no-such-study'"),
        (("digits-100",), {"plugins": ["none.py"]}, "must be a readable file, none.py is not"),
    ],
)
def test_mistakes_are_one_sentence_before_ray_starts(arguments: Any, settings: Any, what: str) -> None:
    with pytest.raises((LadderSearchError, ValueError)) as caught:
        search(*arguments, **settings)
    assert what in str(caught.value) and not ray.is_initialized()


def test_a_process_that_is_connected_to_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(LadderSearchError, match=r"call ray.shutdown\(\) first"):
        search("digits-100")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The settings with which a search would run."""
    settings: list[Any] = []

    class Stop(Exception):  # noqa: N818
        pass

    def stop(chosen: Any, quiet: bool) -> None:
        settings.append(chosen)
        raise Stop

    monkeypatch.setattr(programs, "_run", stop)
    monkeypatch.setattr(programs, "Stop", Stop, raising=False)
    yield settings


def test_arrays_become_a_file_and_a_study(asked: list[Any], tmp_path: Path) -> None:
    classes = CLASSES.copy()
    classes[40:] = -1
    for _ in range(2):
        with pytest.raises(programs.Stop):  # type: ignore[attr-defined]
            search("mine", ROWS, classes, unlabelled=ROWS[:7], trials=5, seed=3, settings={"training": {"lr": 0.004}})
    settings, again = asked
    assert (settings.trials, settings.seed, settings.study) == (5, 3, "mine") and again == settings
    (path,) = (tmp_path / "results" / "arrays").iterdir()  # equal arrays are one file
    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == 67 and table["target"].null_count == 27
    np.testing.assert_array_equal(np.stack([table[f"x{i}"].to_numpy() for i in range(3)], 1)[:60], ROWS)
    study = settings.resolved_study()
    assert study.data.file == str(path) and study.training.lr == 0.004 and study.proposed
    assert study.model.widths[0] == 3 and study.model.widths[-1] == 2


def test_trials_become_a_table() -> None:
    rows = [
        {"trial": "t0000", "error": 0.2, "model/combinator": "gauss", "mixed": 1},
        {"trial": "t0001", "error": None, "model/lr": 0.1, "mixed": "x"},
    ]
    found = Search(study=None, trials=rows, best=None, classifier=None, folder=Path(), problems=[])  # type: ignore[arg-type]
    frame = found.table().to_pandas()
    assert list(frame.columns) == ["trial", "error", "model/combinator", "mixed", "model/lr"]
    assert frame["mixed"].tolist() == ["1", "x"] and frame["error"].isna().tolist() == [False, True]


def test_a_notebook_has_one_display_that_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, content: str) -> None:
            shown.append(content)

    def display(content: str, display_id: bool) -> Handle:
        assert display_id
        shown.append(content)
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})()
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str, display=display))  # type: ignore[arg-type]
    assert in_notebook()
    console = NotebookConsole()
    assert console.redraws
    view = View(lines=["mine", "1 done <&>"], done=1, total=2, times="5 s", rows=[("t0001", "epoch 3/9", "7 %")])
    with live(console, lambda: view):
        pass
    assert "1 done &lt;&amp;&gt;" in shown[-1] and "epoch 3/9" in shown[-1] and shown[-1].startswith("<pre>")
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
