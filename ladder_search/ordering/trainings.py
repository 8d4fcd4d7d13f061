"""The final trainings of an ordering: each study's own configuration on seeds that all share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ladder_search.data import datasets
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.final.missing import Train, check_is_of, train_missing
from ladder_search.final.results import RESULT, FinalResult, read_result
from ladder_search.ordering.claims import Ordering
from ladder_search.reproduction.contenders import fresh_seeds
from ladder_search.reproduction.learning import Learning

FOLDER = "orderings"
"""Folder of the orderings in the root folder."""
TRAINED = "trained"
"""Folder of the trainings that orderings share."""

Results = dict[str, list[FinalResult]]
"""Study -> its final trainings with distinct seeds."""


def shortened_to(ordering: Ordering, epochs: int | None) -> int | None:
    """Return the length of the shortened schedules; None if all are the studies' own. Raise ``SettingError`` if
    ``epochs`` is more than a schedule has."""
    lengths = {study.training.epochs for study in ordering.rows}
    if epochs is not None and epochs > min(lengths):
        raise SettingError(
            f"--epochs shortens an ordering's schedules, those of {ordering.name} have {min(lengths)} epochs, got "
            f"{epochs}; give fewer or none."
        )
    return None if lengths == {epochs} else epochs


def folder_name(name: str, epochs: int | None) -> str:
    """Return the folder of an ordering or study; shortened schedules have folders of their own."""
    return name if epochs is None else f"{name}-{epochs}-epochs"


def train_all(
    ordering: Ordering,
    epochs: int | None,
    *,
    seeds: int,
    root: Path,
    train: Train,
    report: Callable[..., None],
    notify: Callable[[str], None],
) -> Results:
    """Train every study on the same fresh seeds, except for existing results; ``report`` is called after every epoch
    with the progress, and the study's name as ``what``."""
    specs = {study.name: study.trial().changed({}, epochs=epochs) for study in ordering.rows}
    data = {study.data.name: datasets.load(study.data, notify=notify) for study in ordering.rows}
    for spec in specs.values():  # check all before the first is trained
        spec.check_fits(data[spec.data.name])
    shared_seeds = fresh_seeds(seeds, ordering.rows, root)
    return {
        study.name: train_missing(
            study,
            specs[study.name],
            data[study.data.name],
            seeds=shared_seeds,
            place=root / FOLDER / TRAINED / folder_name(study.name, epochs),
            train=partial(train, report=partial(report, what=study.name)),
        )
        for study in ordering.rows
    }


def read_all(ordering: Ordering, epochs: int | None, folder: Path) -> Results:
    """Read the results of ``ladder-search train``, in one folder per study; missing ones are skipped. Raise
    ``StudyFolderError`` if the folder is missing or has other content."""
    results = {}
    for study in ordering.rows:
        place = folder / study.name
        if (place / RESULT).is_file():
            result = read_result(place, networks=False)
            check_is_of(result, study, study.trial().changed({}, epochs=epochs), place)
            results[study.name] = [result]
    if not results:
        raise StudyFolderError(
            f"--from names a folder with finished trainings of the ordering's studies, {folder} has none of "
            f"{', '.join(ordering.studies)}; name another, or leave --from out to train them."
        )
    return results


def learning_curves(ordering: Ordering, results: Results) -> list[Learning]:
    """Return the learning curves of studies that have any and are compared by the ordering's measure."""
    curves = [
        Learning.where_told(study.name, study.title, results[study.name])
        for study in ordering.rows
        if results.get(study.name) and study.measure.name == ordering.measure
    ]
    return [one for one in curves if one is not None]
