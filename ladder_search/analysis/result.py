"""Analyses of a bundle: the choice of examples, and the folder of a result.

A result's folder::

    analysis.json    settings, digests of bundle and data, findings and duration
    *.png, *.html    pictures, with the script that the pages share
    spool/           tracking events, stored and waiting
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.bundles.bundle import Bundle
from ladder_search.config import as_mapping, build
from ladder_search.data.dataset import Dataset
from ladder_search.data.permutation import permutations
from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.folders import unwritable, write_folder
from ladder_search.errors import CheckpointError, SettingError, StudyFolderError, command_line
from ladder_search.provenance import collect

FORMAT = "ladder-search analysis 1"
ANALYSIS = "analysis.json"

Part = Literal["validation", "test"]
"""validation: rows held out by the bundle's own split; test: the data set's test part."""

EXAMPLES = 3
"""Tag of the permutation that examples are taken from, distinct from those of splits and batch streams."""

Report = Callable[[int, int, str], None]
"""Called with the number done, the total and the next item."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""


class Examples(NamedTuple):
    """Examples that a network is evaluated on."""

    x: NDArray[np.uint8]  # (rows, d)
    y: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    family: str
    study: str
    """Name of the bundle's study, or ""."""
    bundle: str
    dataset: str
    data_digest: str
    part: Part
    settings: Any
    """Settings of the family's analysis, a frozen dataclass."""
    found: Any
    """Result of the family's analysis, a frozen dataclass."""
    device: str
    seconds: float
    provenance: Mapping[str, Any]
    """See ``provenance.collect``."""

    @classmethod
    def of(
        cls, bundle: Bundle, dataset: Dataset, part: Part, settings: Any, found: Any, *, device: str, seconds: float
    ) -> Analysis:
        return cls(
            family=bundle.spec.family,
            study=bundle.study,
            bundle=bundle.digest,
            dataset=dataset.name,
            data_digest=dataset.digest,
            part=part,
            settings=settings,
            found=found,
            device=device,
            seconds=seconds,
            provenance=collect(**dataset.facts),
        )

    @property
    def asked(self) -> str:
        return name_of(self.bundle, self.data_digest, self.part, self.settings)


def name_of(bundle: str, data_digest: str, part: Part, settings: Any) -> str:
    """Return the sha256 that identifies a request; analyses with the same name have equal results up to rounding."""
    request = {"bundle": bundle, "data": data_digest, "part": part, "settings": as_mapping(settings)}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def part_of(bundle: Bundle, *, test: bool) -> Part:
    """Return the part of the data to evaluate a bundle on: validation rows if its split has any, else the test set;
    raise ``SettingError`` if the test set is requested for a bundle of a search, which must not read it."""
    # Data sets with their own validation examples (music) have them in final trainings too; only those have a test
    # error.
    held_out = bundle.spec.data.holds_out and bundle.metrics.test_error is None
    if test and held_out:
        raise SettingError(
            f"the test set is for bundles of a final training and {bundle.folder} holds out rows; leave "
            f"--test out, or run `{command_line('train', bundle.folder)}` first."
        )
    return "validation" if held_out else "test"


def examples(bundle: Bundle, dataset: Dataset, part: Part, *, rows: int | None, seed: int, usual: int) -> Examples:
    """Return ``rows`` examples of ``part``, drawn with ``seed``; by default ``usual``, or all if there are fewer. Raise
    ``SettingError`` if there are fewer than ``rows``, or none."""
    among = among_rows(bundle, dataset, part)
    count = min(usual, len(among)) if rows is None else rows
    check_rows(count, len(among), f"the {part} rows of {dataset.name}")
    x, y = (dataset.train_x, dataset.train_y) if part == "validation" else (dataset.test_x, dataset.test_y)
    chosen = among[permutations(len(among), seed=seed, tag=EXAMPLES)[0][:count]]
    return Examples(x[chosen], y[chosen])


def among_rows(bundle: Bundle, dataset: Dataset, part: Part) -> NDArray[np.int64]:
    """Return the rows, or pieces, of ``part``; a bundle has the weights of the first label draw."""
    if part == "validation":
        return bundle.spec.member(dataset).split.validation
    return np.arange(len(dataset.test_y) if dataset.pieces is None else len(dataset.pieces.test_lengths))


def check_rows(rows: int, most: int, what: str) -> None:
    """Raise ``SettingError`` unless ``rows`` lie in 1..``most``, the number of ``what``."""
    if not 1 <= rows <= most:
        raise SettingError(f"--rows must lie in 1..{most}, {what}, got {rows}; give fewer.")


def check_finite(answers: Iterable[Tensor]) -> None:
    """Raise ``CheckpointError`` unless all answers of a network are finite."""
    if not all(bool(torch.isfinite(values).all()) for values in answers):
        raise CheckpointError(
            "an analysis needs finite outputs, and some outputs of this network are not finite; analyse one that did "
            "not diverge."
        )


def write_analysis(folder: Path, analysis: Analysis, pictures: Mapping[str, bytes]) -> None:
    """Write the result and its pictures (file name -> content) atomically; raise ``StudyFolderError`` if the folder
    exists already or cannot be written."""
    content = {"format": FORMAT, "asked": analysis.asked, **as_mapping(analysis)}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_folder(folder, {ANALYSIS: text.encode(), **pictures})


def kept_analysis(folder: Path, asked: str, *, settings: type[Any], found: type[Any]) -> Analysis | None:
    """Return the analysis in ``folder``, with the dataclasses ``settings`` and ``found``; None if there is none. Raise
    ``StudyFolderError`` if the folder has other content or cannot be created, ``CheckpointError`` if it cannot be read
    as such an analysis.

    Called before minutes of work, so that an unusable folder is reported first; it creates the parent folder. ``asked``
    is the name of the expected analysis, see ``name_of``.
    """
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        return None
    if not (folder / ANALYSIS).is_file():
        raise StudyFolderError(
            f"an analysis needs an empty folder or one of its own, and {folder} exists without an {ANALYSIS}; "
            "choose another place."
        )
    remedy = "delete the folder or choose another place"
    with refused(folder / ANALYSIS, "be an analysis of this kind", remedy):
        raw = read_document(folder / ANALYSIS, FORMAT)
        fields = {name: value for name, value in raw.items() if name not in ("format", "asked")}
        typed = {"settings": build(settings, fields["settings"]), "found": build(found, fields["found"])}
        analysis = build(Analysis, {**fields, **typed})
    if analysis.asked != asked:
        raise StudyFolderError(
            f"an analysis is never overwritten and {folder} holds one of other settings, data or weights; choose "
            "another place with -o, or delete it."
        )
    return analysis
