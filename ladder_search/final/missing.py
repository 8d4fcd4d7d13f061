"""Final trainings of a study's own configuration: existing results are read, missing seeds are trained.

The folder has one subfolder for each block of seeds that was trained as one pack, ``seeds-1001-1005``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ladder_search.config import flat
from ladder_search.data.dataset import Dataset
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.final.results import RESULT, FinalResult, read_result, write_result
from ladder_search.final.training import comparable
from ladder_search.studies import Study
from ladder_search.trial import TrialSpec

Train = Callable[..., FinalResult]
"""``training.train_final`` with its device, report, networks and learning curve."""


def train_missing(
    study: Study, spec: TrialSpec, dataset: Dataset, *, seeds: Sequence[int], place: Path, train: Train
) -> list[FinalResult]:
    """Train ``spec`` on those of ``seeds`` without a result in ``place``; return all results that contain any of them.
    Existing results keep their learning curves.

    Raises:
        StudyFolderError: the place belongs to another configuration, is in use, or cannot be written.
        CheckpointError: its content is damaged.
    """
    results = []
    for path in sorted(place.glob(f"seeds-*/{RESULT}")):
        result = read_result(path.parent, networks=False)
        check_is_of(result, study, spec, path.parent)
        if result.data_digest != dataset.digest:
            raise StudyFolderError(
                f"{path.parent} was trained on other data called {dataset.name} (digest {result.data_digest[:12]}, not "
                f"{dataset.digest[:12]}); choose another root folder, or delete it."
            )
        if set(seeds) & {outcome.seed for outcome in result.outcomes}:
            results.append(result)
    trained = {outcome.seed for result in results for outcome in result.outcomes}
    missing = [seed for seed in seeds if seed not in trained]
    if missing:
        folder = place / f"seeds-{missing[0]}-{missing[-1]}"
        result = train(spec, dataset, seeds=missing, study=study, folder=folder)
        write_result(folder, result)
        results.append(result)
    return results


def check_is_of(result: FinalResult, study: Study, spec: TrialSpec, folder: Path) -> None:
    """Raise ``StudyFolderError`` unless the result belongs to ``study`` and, apart from seeds, to these settings."""
    if result.study != study.name:
        raise StudyFolderError(
            f"{folder} must hold a final training of {study.name}, found one of {result.study or 'no study'}; name "
            "another folder."
        )
    trained, expected = _settings(result.spec), _settings(spec)
    other = sorted(name for name in trained.keys() | expected.keys() if trained.get(name) != expected.get(name))
    if other:
        name = other[0]
        raise StudyFolderError(
            f"{folder} must hold {study.name} with the requested settings, {name.replace('/', '.')} is "
            f"{trained.get(name)} there and {expected.get(name)} here; "
            + ("give its --epochs." if other == ["training/epochs"] else "train it again, or name another folder.")
        )


def check_same_data(results: Sequence[FinalResult]) -> None:
    """Raise ``CheckpointError`` if trainings on data sets of the same name used different data."""
    first: dict[str, FinalResult] = {}
    for result in results:
        other = first.setdefault(result.spec.data.name, result)
        if other.data_digest != result.data_digest:
            raise CheckpointError(
                f"{other.study} and {result.study} were trained on different data called {result.spec.data.name} "
                f"(digests {other.data_digest[:12]} and {result.data_digest[:12]}); train one of them again."
            )


def _settings(spec: TrialSpec) -> dict[str, Any]:
    return flat(comparable(spec).as_mapping())
