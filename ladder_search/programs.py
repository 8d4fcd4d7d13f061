"""Searches from a program or a notebook."""

from __future__ import annotations

import hashlib
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_array

from ladder_search.classifier import LadderClassifier, labels_of
from ladder_search.config import build, merge
from ladder_search.console import Console
from ladder_search.console.notebook import NotebookConsole, in_notebook
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.disk.files import write_atomically
from ladder_search.driver.cluster import check_unconnected
from ladder_search.driver.search import SearchResult
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.record.trial import TrialRecord, best_trials
from ladder_search.studies import STUDIES, as_definition, find_study, is_study_file
from ladder_search.studies.proposal import Facts, proposed
from ladder_search.studies.study import Study
from ladder_search.studies.study_file import study_from
from ladder_search.tracking.address import variable_store, with_login

ARRAYS = "arrays"
"""Folder in the root folder, for the files of searches on arrays."""
TARGET = "target"
"""Column of the classes in these files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found."""

    study: Study
    trials: list[dict[str, Any]]
    """One row per ended trial, in order of their numbers: ``trial``, ``name``, ``state``, the validation value under
    the name of its measure, ``epochs``, ``seconds``, and each parameter by its path (``model/lambda_0``)."""
    best: Mapping[str, Any] | None
    """Nested settings of the best complete trial; None if no trial is complete."""
    classifier: LadderClassifier | None
    """A classifier with the best settings, trained on all rows; None without arrays."""
    folder: Path
    """The study folder, for every command of ``ladder-search``."""
    problems: list[str]

    def table(self) -> pa.Table:
        """Return the trials as a PyArrow table, of which ``to_pandas()`` makes a data frame."""
        names = list(dict.fromkeys(name for row in self.trials for name in row))
        columns = {name: [row.get(name) for row in self.trials] for name in names}
        return pa.table({name: _column(values) for name, values in columns.items()})


def search(
    study: str,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    unlabelled: ArrayLike | None = None,
    trials: int = 24,
    family: str = "ladder",
    settings: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    root: str | Path = "results",
    name: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> Search:
    """Search a study's hyper-parameters, as ``search.py`` does, and return its trials, best settings and a classifier.

    The environment, signal handlers, loggers and streams of the process are afterwards as they were. Every command of
    ``ladder-search`` works on the study folder.

    Args:
        study: without arrays, a study or a study file; with arrays, the name of a new study of these data.
        X: rows of numbers, (rows, columns), without missing values.
        y: their classes, (rows,); -1 or a missing value marks a row without a label.
        unlabelled: further rows without a label, (more rows, columns).
        trials: configurations to try.
        family: family of the new study.
        settings: nested settings that replace the study's own, or those proposed for the arrays.
        plugins: Python files that register families or studies.
        root: folder of the study folders.
        name: name of the study folder; None: study and time.
        quiet: print nothing.
        options: further settings of ``driver.settings.SearchSettings``, such as ``seed`` and ``time_budget``.

    Raises ``LadderSearchError``, with one sentence, if a setting, the data or the machine is unsuitable, and
    ``ValueError`` for arrays that scikit-learn's estimators refuse.

    >>> found = search("my-digits", X, y, trials=8)
    >>> found.table().to_pandas().sort_values("error")
    >>> found.classifier.predict(X)
    """
    check_unconnected()
    if "confirm" in options:
        raise SettingError("confirm is an option of search.py; call `ladder-search reproduce` after the search.")
    base: dict[str, Any] = {"trials": trials, "root": str(root), "name": name, "plugin": [str(one) for one in plugins]}
    for path in base["plugin"]:
        _plugins().use(Path(path))
    rows = classes = None
    if X is None:
        if y is not None or unlabelled is not None:
            raise SettingError("classes and unlabelled rows belong to rows, got no X; give X as well.")
        found = find_study(study, Path(root))
        base["overrides"] = merge({}, settings or {})
    else:
        rows, classes = _rows_of(X, y, unlabelled)
        found = _study_of(study, family, rows, classes, Path(root), settings or {})
    base |= {"study": found.name, "definition": as_definition(found) if found.proposed else None}
    store = options.pop("tracking", None) or variable_store()
    chosen = build(SearchSettings, {**base, **options, "tracking": store and with_login(store)})
    result = _run(chosen, quiet)
    best = next(iter(best_trials(result.records, result.study.measure)), None)
    classifier = None
    if rows is not None and classes is not None and best is not None:
        classifier = _classifier(best, chosen.seed).fit(rows, classes)
    return Search(
        study=result.study,
        trials=[_as_row(record, result.study.measure.name) for record in result.records],
        best=None if best is None else best.settings,
        classifier=classifier,
        folder=result.folder.path,
        problems=result.problems,
    )


def _plugins() -> Any:
    from ladder_search import plugins  # an argument has this name

    return plugins


def _rows_of(X: ArrayLike, y: ArrayLike | None, unlabelled: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all rows, (n, columns), and their classes as objects, (n,), None without a label."""
    if y is None:
        raise SettingError("a search needs classes of labelled rows, got no y; give one entry per row, -1 without one.")
    rows = check_array(X, dtype=np.float64, input_name="X")
    classes = labels_of(y, len(rows))
    if unlabelled is not None:
        more = check_array(unlabelled, dtype=np.float64, input_name="unlabelled")
        if more.shape[1] != rows.shape[1]:
            raise SettingError(
                f"unlabelled rows must have the {rows.shape[1]} columns of X, got {more.shape[1]}; correct them."
            )
        rows, classes = np.concatenate([rows, more]), np.concatenate([classes, np.full(len(more), None)])
    return rows, classes


def _study_of(
    name: str, family: str, rows: NDArray[Any], classes: NDArray[Any], root: Path, settings: Mapping[str, Any]
) -> Study:
    """Write the arrays to a file in ``root`` and return a study of it, proposed by their sizes."""
    if is_study_file(name):
        raise SettingError(f"arrays make a new study, which needs a name, got the file {name}; give a plain name.")
    if name in STUDIES:  # before anything is written
        raise SettingError(f"arrays make a new study, whose name must not be that of a built-in study, got {name}.")
    table = pa.table({**{f"x{i}": column for i, column in enumerate(rows.T)}, TARGET: pa.array(classes.tolist())})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    content = sink.getvalue().to_pybytes()
    path = root.absolute() / ARRAYS / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise StudyFolderError(
            f"arrays are kept in {path.parent}, which is not writable: {error}; choose another root."
        ) from error
    dataset = datasets.load(DataConfig(file=str(path), target=TARGET))
    mapping: dict[str, Any] = proposed(Facts.of(dataset))
    mapping = merge({**mapping, "name": name, "family": family}, {"data": {"file": str(path), "target": TARGET}})
    if family != "ladder":
        mapping["model"] = {"widths": mapping["model"]["widths"]}
        mapping = {section: value for section, value in mapping.items() if section not in ("space", "baseline")}
    return study_from(merge(mapping, settings), STUDIES)


def _classifier(best: TrialRecord, seed: int) -> LadderClassifier:
    """Return a classifier with the settings of a trial; files leave out constant columns, so the widths may differ."""
    model = {key: value for key, value in best.settings["model"].items() if key != "widths"}
    hidden = best.settings["model"]["widths"][1:-1]
    settings = {"model": model, "training": best.settings["training"]}
    return LadderClassifier(best.settings["family"], hidden=hidden, settings=settings, random_state=seed)


def _run(settings: SearchSettings, quiet: bool) -> SearchResult:
    """Run the search by the checkout's ``search.py``, which connects the library with trainables and spaces."""
    script = Path(__file__).resolve().parents[1] / "search.py"
    if not script.is_file():
        raise SettingError(
            f"a search runs the checkout's search.py, and {script} does not exist; install the checkout with pip -e."
        )
    with _as_before(str(script.parent)), open(os.devnull, "w", encoding="utf-8") as nothing:
        console = Console(nothing) if quiet else NotebookConsole() if in_notebook() else Console()
        result: SearchResult = runpy.run_path(str(script), run_name="ladder_search.entry")["run"](settings, console)
        return result


@contextmanager
def _as_before(folder: str) -> Iterator[None]:
    """Restore the import path and how standard output treats missing characters; ``run_search`` restores the rest."""
    path, errors = list(sys.path), getattr(sys.stdout, "errors", None)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = path
        if errors is not None and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors=errors)


def _as_row(record: TrialRecord, measure: str) -> dict[str, Any]:
    return {
        "trial": record.key,
        "name": record.name,
        "state": record.state,
        measure: record.validation_error,
        "epochs": int(record.epochs[-1]["epoch"]) if record.epochs else 0,
        "seconds": record.seconds,
        **record.params,
    }


def _column(values: list[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) < 2 or kinds <= {int, float} else [None if v is None else str(v) for v in values]
