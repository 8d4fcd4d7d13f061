"""Pictures of a search: each as a PNG for a paper's appendix and as an interactive page.

A picture that lacks its data says in words what is missing; none of them ever stops a search.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna

from ladder_search.pictures import canvas, curves, parallel, parameters, survival
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.studies.study import Study

__all__ = ["draw_all"]

_PICTURES: dict[str, Callable[[str, Trials], Picture]] = {
    "learning curves": curves.learning_curves,
    "parameter importance": parameters.importance,
    "slices": parameters.slices,
    "parallel coordinates": parallel.parallel_coordinates,
    "rung survival": survival.rung_survival,
}


def draw_all(
    folder: StudyFolder, study: Study, records: Sequence[TrialRecord], optuna_study: optuna.Study
) -> list[Path]:
    """Draw every picture into ``folder.pictures`` and return the files: ``learning-curves.png``, ``.html`` and so on.

    Beside them lies the one ``plotly.min.js`` that the pages share: they move together.

    Args:
        folder: the study's folder; older pictures in it are replaced.
        study: its target and baseline are drawn.
        records: the ended trials, reference trials included.
        optuna_study: the search's own study: what was suggested, from which distributions.

    Raises:
        OSError: the folder cannot be written.
    """
    paths = []
    with _quiet(), canvas.style():
        trials = Trials.of(study, records, optuna_study)
        for name, draw in _PICTURES.items():
            title = f"{study.name}: {name}"
            try:
                picture = draw(title, trials)
                files = canvas.save(picture, folder.pictures, name.replace(" ", "-"))
            except OSError:
                raise
            except Exception as error:  # a defect here must not cost the search its end
                picture = canvas.words(title, f"This picture could not be drawn: {error!r}")
                files = canvas.save(picture, folder.pictures, name.replace(" ", "-"))
            paths.extend(files)
    return paths


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Optuna and plotly say about their own future, and each study made in memory, off the console."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(optuna|plotly|matplotlib)(\.|$)")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
