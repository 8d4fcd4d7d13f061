"""Settings of the data of a trial: a row of the table of data sets, or files."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from ladder_search.config import in_range, optional
from ladder_search.data.table import DATASETS
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.paths import expanded_address

_OF_FILES = (
    "test_file", "unlabelled_file", "target", "test", "leave_out", "categories", "image_size", "scaling",
)  # fmt: skip
"""Settings that need ``file``; they and ``file`` are the name of the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The data of a trial: either ``dataset`` or ``file``."""

    dataset: str = optional("")
    """Row of ``data.table.DATASETS``; empty if ``file`` is given."""
    file: str | None = optional(None)
    """File or folder of examples instead of a data set of the table; docs/data.md lists the formats."""
    test_file: str | None = optional(None)
    """File or folder of test examples, in the same columns as ``file``."""
    unlabelled_file: str | None = optional(None)
    """File or folder of further training examples; their targets are not read."""
    target: str | None = optional(None)
    """Name of the column of the classes; null for formats that have no columns."""
    test: float = optional(0.0)
    """Share of ``file`` that is for testing, the same for every seed and stratified; 0: none."""
    labels: int | None = None
    """Number of labelled examples; null: all labelled training examples. For a data set of the table, the number is
    equal for each class; for files, each class has its share."""
    validation: int | float = 0
    """Training examples for validation: a whole number of rows, or a share in (0, 1) of the labelled examples,
    stratified; 0 in final training."""
    folds: int = optional(0)
    """Number of folds of the labelled examples: label draw i holds out fold i for validation; 0: none."""
    measure: Literal["error", "balanced-error", "log-loss"] | None = optional(None)
    """What trials are compared, stopped and tested by; the other two are reported beside it. error: fraction of
    misclassified examples; balanced-error: mean of the classes' errors; log-loss: mean negative logarithm of the true
    class's probability, in nats. null: what the family is judged by, and for files error with the others beside it."""
    batches: Literal["as-drawn", "balanced"] = optional("as-drawn")
    """as-drawn: labelled batches have the shares of the classes; balanced: each class equally often."""
    leave_out: tuple[str, ...] = optional(())
    """Columns of ``file`` that are not read."""
    categories: tuple[str, ...] = optional(())
    """Columns of ``file`` that are categories although they are numbers, or have many different texts."""
    image_size: int | None = optional(None)
    """Side in pixels to which images of ``file`` are resized; null: images have one size and keep it."""
    scaling: Literal["standard", "unit"] = optional("standard")
    """Scaling of the numbers of ``file``, fitted on the training examples. standard: mean 0 and standard deviation 1;
    unit: minimum 0 and maximum 1. Pixels of images are always in 0..1."""
    preprocessing: Literal["none", "gcn-zca"] = "none"
    """none: pixels in 0..1; gcn-zca: contrast normalisation and whitening, see ``data.whitening``.

    Whitening is fitted on the training images without the validation images, and applied to all.
    """

    def __post_init__(self) -> None:
        if self.file is None:
            self._check_row()
        elif self.dataset:
            raise SettingError(
                f"data come from data.dataset or from data.file, got {self.dataset!r} and {self.file!r}; leave one "
                "out, or set it to '' or null."
            )
        if self.test and self.test_file is not None:
            raise SettingError(
                f"test examples come from data.test_file or are a share of data.file, got {self.test_file!r} and "
                f"data.test={self.test}; leave one out."
            )
        in_range("data.test", self.test, 0.0, 0.9)
        for name in ("file", "test_file", "unlabelled_file"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, _absolute(path, f"data.{name}"))
        if self.labels is not None and self.labels < 1:
            raise SettingError(
                f"data.labels must be at least 1 or null, got {self.labels}; give a positive whole number."
            )
        if self.validation < 0:
            raise SettingError(f"data.validation must be 0 or more, got {self.validation}; give a whole number.")
        if self.validation >= 1 or self.validation == 0:
            if self.validation != int(self.validation):
                raise SettingError(
                    f"data.validation must be a whole number of rows or a share below 1, got {self.validation}; give "
                    f"{int(self.validation)}, or for example 0.2."
                )
            object.__setattr__(self, "validation", int(self.validation))
        if self.folds and self.validation:
            raise SettingError(
                f"data.folds holds out one fold after the other and data.validation the same rows, got data.folds="
                f"{self.folds} and data.validation={self.validation}; set one of them to 0."
            )
        if self.folds < 0 or self.folds == 1:
            raise SettingError(f"data.folds must be 0 or at least 2, got {self.folds}; 5 is usual.")
        if self.image_size is not None:
            in_range("data.image_size", self.image_size, 1, 4096)

    def _check_row(self) -> None:
        if not self.dataset:
            raise SettingError(
                "data need data.dataset or data.file, got neither; give a row of `ladder-search studies`, or a file."
            )
        if self.dataset not in DATASETS:
            raise UnknownNameError("data set", self.dataset, DATASETS)
        for name in _OF_FILES:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise SettingError(
                    f"data.{name} is a setting of data.file, got data.{name}={getattr(self, name)!r} with data.dataset="
                    f"{self.dataset}; leave it out."
                )

    @property
    def holds_out(self) -> bool:
        """Whether examples are held out for validation."""
        return self.validation > 0 or self.folds > 0

    @property
    def everything(self) -> DataConfig:
        """The same data with nothing held out."""
        return replace(self, validation=0, folds=0)

    @property
    def name(self) -> str:
        """Name of the data: equal for settings that read the same examples, and different otherwise.

        It is the row of the table, or the file with the settings that reading it depends on:
        ``/data/flowers.csv (target=species, test=0.2)``.
        """
        if self.file is None:
            return self.dataset
        fields = type(self).__dataclass_fields__
        changed = [f"{n}={getattr(self, n)}" for n in _OF_FILES if getattr(self, n) != fields[n].default]
        return f"{self.file} ({', '.join(changed)})" if changed else self.file

    @property
    def title(self) -> str:
        """Short name for titles and folders: the row of the table, or the name of the file without its suffix."""
        return self.dataset if self.file is None else PurePosixPath(self.file).name.partition(".")[0] or "data"


def _absolute(path: str, what: str) -> str:
    """Return the path as other working directories and the nodes of a cluster read it; addresses are unchanged."""
    whole = expanded_address(path, what)
    return whole if "://" in whole else os.path.abspath(whole)
