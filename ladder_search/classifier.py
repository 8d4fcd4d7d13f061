"""A classifier with scikit-learn's conventions, trained by the same pack as the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from ladder_search.config import as_mapping, build, merge
from ladder_search.data.splits import Split
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.models import find_family
from ladder_search.models.ladder import LadderConfig
from ladder_search.nn.protocol import ModelConfig, WidthsConfig
from ladder_search.studies.proposal import Facts, proposed
from ladder_search.training.feeds import TrainingData
from ladder_search.training.member import MemberSpec
from ladder_search.training.pack import Pack
from ladder_search.training.settings import TrainingConfig

_SECTIONS = {"model", "training"}
_ROWS_AT_ONCE = 8192


class LadderClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A semi-supervised classifier of rows of numbers, by default a ladder network (Rasmus et al. 2015).

    Rows without a label take part in ``fit``: their entry of ``y`` is ``unlabelled``, or a missing value (None, NaN).
    Columns are standardised with mean and deviation of all rows given to ``fit``. Settings that are not given follow
    from the sizes of the data, see ``studies.proposal``. Missing and infinite values of ``X`` and sparse matrices are
    refused; categories and missing values are a matter of the steps before it in a pipeline.

    Attributes after ``fit``:
        classes_: the classes, sorted, (classes,).
        n_features_in_: number of columns; ``feature_names_in_`` are their names, if ``X`` had text as names.
        settings_: plain nested settings of model and training as they were used.
        scaler_: the fitted ``StandardScaler`` of the columns.
        n_labelled_: number of labelled rows.
        costs_: mean of each cost term over the last epoch, by name.
        network_: the trained network; it takes standardised rows and returns probabilities.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> y[100:] = -1
    >>> classifier = LadderClassifier(random_state=0).fit(X, y)
    >>> classifier.predict_proba(X[:5]).shape
    (5, 10)
    """

    def __init__(
        self,
        family: str = "ladder",
        *,
        hidden: Sequence[int] | None = None,
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        unlabelled: Any = -1,
        random_state: Any = None,
    ) -> None:
        """Args:
        family: a family of fully connected networks, built in or of a plugin.
        hidden: widths of the hidden layers; None: proposed.
        epochs: passes over all rows; None: proposed.
        settings: nested settings that replace the proposed ones, ``{"model": {…}, "training": {…}}``.
        unlabelled: entry of ``y`` of a row without a label; None: only missing values mark such rows, so that -1 can
            be a class.
        random_state: seed of weights, noise and batches: None, a whole number or a ``RandomState``.
        """
        self.family = family
        self.hidden = hidden
        self.epochs = epochs
        self.settings = settings
        self.unlabelled = unlabelled
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on rows ``X``, (rows, columns), with classes ``y``, (rows,).

        Raises ``ValueError`` for data that scikit-learn's estimators refuse, fewer than two classes among the labelled
        rows, or invalid settings.
        """
        if y is None:
            validate_data(self, X, y)  # raises
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        marked: NDArray[Any] = column_or_1d(y, warn=True)
        check_consistent_length(rows, marked)
        labelled = np.flatnonzero(~_is_missing(marked, self.unlabelled))
        targets = _comparable(marked[labelled])
        check_classification_targets(targets)
        self.classes_, numbers = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a classifier needs labelled rows of 2 classes or more, got {len(self.classes_)} class in "
                f"{len(labelled)} labelled rows of {len(rows)}; label more rows, or set unlabelled=None if "
                f"{self.unlabelled!r} is a class."
            )
        self.n_labelled_ = len(labelled)
        self.scaler_ = _fitted_scaler(rows)
        classes = np.full(len(rows), -1, np.int64)
        classes[labelled] = numbers
        model, training = self._proposed(classes, rows.shape[1])
        self.settings_ = {"model": as_mapping(model), "training": as_mapping(training)}
        self.network_, self.costs_ = self._train(model, training, self.scaler_.transform(rows), classes)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of ``classes_``, (rows, classes)."""
        check_is_fitted(self)
        rows = self.scaler_.transform(validate_data(self, X, dtype=np.float64, reset=False))
        with torch.no_grad():
            parts = [self.network_(part) for part in torch.split(torch.from_numpy(rows), _ROWS_AT_ONCE)]
        probabilities: NDArray[np.float64] = torch.cat(parts).numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each row, (rows,)."""
        probabilities = self.predict_proba(X)
        classes: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return classes

    def _proposed(self, classes: NDArray[np.int64], columns: int) -> tuple[ModelConfig, TrainingConfig]:
        """Return the settings for rows of these classes, -1 without a label, and this many columns; raise
        ``SettingError`` if they are invalid."""
        kind = find_family(self.family).config
        if not issubclass(kind, WidthsConfig):
            raise SettingError(
                f"LadderClassifier trains families of fully connected networks, got {self.family}; choose another."
            )
        changes = merge({}, self.settings or {})
        for section in changes:
            if section not in _SECTIONS:
                raise UnknownNameError("group of settings", str(section), _SECTIONS)
        labelled = tuple(np.bincount(classes[classes >= 0]).tolist())
        facts = Facts(inputs=columns, rows=len(classes), labelled=labelled)
        settings = proposed(facts)
        model = settings["model"] if issubclass(kind, LadderConfig) else {"widths": settings["model"]["widths"]}
        if self.hidden is not None:
            layers = len(self.hidden) + 2
            model["widths"] = [columns, *map(int, self.hidden), len(labelled)]
            for name in model.keys() & {"noise_std", "lambda_"}:  # one entry per layer
                model[name] = [*model[name][:2], *[model[name][-1]] * layers][:layers]
        training = settings["training"] | ({} if self.epochs is None else {"epochs": self.epochs})
        config = build(kind, merge(model, changes.get("model", {})), where="model")
        config.check_fits(columns, len(labelled), "the data")
        return config, build(TrainingConfig, merge(training, changes.get("training", {})), where="training")

    def _train(
        self, model: ModelConfig, training: TrainingConfig, rows: NDArray[np.float64], classes: NDArray[np.int64]
    ) -> tuple[torch.nn.Module, dict[str, float]]:
        seed = int(check_random_state(self.random_state).randint(2**31))
        every, labelled = np.arange(len(rows)), np.flatnonzero(classes >= 0)
        split = Split(labelled=labelled, unlabelled=every, validation=every[:0])
        member = MemberSpec(model=model, training=training, split=split, seed=seed)
        x = torch.from_numpy(rows).to(torch.float32 if training.dtype == "float32" else torch.float64)
        feed = TrainingData(x=x, y=torch.from_numpy(classes), full_scale=1.0)
        family = find_family(self.family)
        pack = Pack(member, family.build, feed, stacking=family.stacking)
        slot = pack.join(member)
        for _ in range(training.epochs):
            report = pack.run(member.steps_per_epoch)[slot]
        if not report.finite:
            raise ValueError(
                "training diverged: a weight or a cost is not finite; lower training.lr in settings, or look for "
                "extreme values in the columns."
            )
        # In double precision a row's probabilities do not depend on the rows beside it.
        return pack.module(slot).double().eval().requires_grad_(False), report.terms


def labels_of(y: ArrayLike, rows: int, unlabelled: Any = -1) -> NDArray[Any]:
    """Return the classes of ``rows`` rows as an array of objects, (rows,), with None for rows without a label; raise
    ``ValueError`` if their number is another or they are no classes."""
    marked: NDArray[Any] = column_or_1d(y, warn=True)
    if len(marked) != rows:
        raise ValueError(f"y must have one entry per row, got {len(marked)} for {rows} rows; correct one of them.")
    missing = _is_missing(marked, unlabelled)
    check_classification_targets(_comparable(marked[~missing]))
    return np.array([None if gone else value for value, gone in zip(marked.tolist(), missing, strict=True)], object)


def _is_missing(y: NDArray[Any], unlabelled: Any) -> NDArray[np.bool_]:
    """Return which entries of ``y``, (rows,), mark rows without a label; in text, the mark may be text too, because
    NumPy makes text of ``["a", -1]``."""
    kind = y.dtype.kind
    if kind in "iufb":
        number = isinstance(unlabelled, (int, float, np.number)) and not isinstance(unlabelled, bool)
        marked: NDArray[np.bool_] = np.isnan(y) | (y == unlabelled) if number and kind != "b" else np.isnan(y)
        return marked
    marks = () if unlabelled is None else (unlabelled, str(unlabelled))
    return np.array([_is_null(value) or any(_is_mark(value, mark) for mark in marks) for value in y.tolist()], bool)


def _is_mark(value: Any, mark: Any) -> bool:
    return isinstance(value, str) == isinstance(mark, str) and bool(value == mark)


def _is_null(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA, which refuses comparison."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        return True


def _comparable(targets: NDArray[Any]) -> NDArray[Any]:
    """Return labels without missing values as numbers or text: an array of objects may hold either."""
    if targets.dtype.kind != "O" or not len(targets):
        return targets
    kinds = {"text" if isinstance(value, str) else "number" for value in targets}
    if len(kinds) > 1:
        raise ValueError("classes must be all numbers or all text, got both; convert them.")
    return targets if "text" in kinds else np.array(targets.tolist())


def _fitted_scaler(rows: NDArray[np.float64]) -> StandardScaler:
    """Return the standardisation of each column; a constant column becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = StandardScaler().fit(rows)
    if not (np.isfinite(scaler.mean_).all() and np.isfinite(scaler.scale_).all()):
        raise ValueError("columns must have a finite deviation, got values whose squares overflow; rescale them.")
    return scaler
