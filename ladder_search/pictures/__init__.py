"""Pictures of a search, each as a PNG and as an interactive page.

A picture without data shows a text with the reason; errors in a picture never stop a search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Draw every picture into ``folder.pictures``, replacing existing ones, and return the files:
    ``learning-curves.png``, ``.html`` and so on. Raise ``OSError`` if the folder cannot be written.

    ``study`` has the target and the baseline; ``records`` are finished trials, including reference trials;
    ``optuna_study`` has the suggestions and their distributions.
    """
    paths = []
    with canvas.style():
        trials = Trials.of(study, records, optuna_study)
        for name, draw in _PICTURES.items():
            title, file = f"{study.name}: {name}", name.replace(" ", "-")
            try:
                paths += canvas.save(draw(title, trials), folder.pictures, file)
            except OSError:
                raise
            except Exception as error:  # a defect here must not fail the search
                picture = canvas.words(title, f"This picture could not be drawn: {error!r}")
                paths += canvas.save(picture, folder.pictures, file)
    return paths
