"""The search's own run in the tracking store, with its settings, provenance, pictures and summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from ladder_search.config import as_mapping
from ladder_search.data.dataset import Dataset
from ladder_search.pictures import draw_all
from ladder_search.provenance import Fact, as_tags
from ladder_search.ranking import summary
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.report.leaderboard import leaderboard_markdown
from ladder_search.studies import Study
from ladder_search.tracking import DatasetInput, MetricPoint, RunStatus, Tracker
from ladder_search.tracking.clock import steady_time
from ladder_search.trial import TrialSpec


class ParentRun:
    """The parent of all trials' runs; ``start`` also ends the runs of earlier executions."""

    def __init__(self, tracker: Tracker, search: str, study: Study, folder: StudyFolder, life: int) -> None:
        """Args: ``search`` is the prefix of run keys; ``life`` counts the executions from 1."""
        self._tracker, self._search, self._key = tracker, search, f"{search}/search"
        self._study, self._folder, self._life = study, folder, life

    def start(
        self,
        settings: Mapping[str, Any],
        tags: Mapping[str, str],
        provenance: Mapping[str, Fact],
        dataset: DatasetInput,
    ) -> None:
        """Args: ``settings`` are those at the beginning of the search, because the store never changes a parameter."""
        target = self._study.target
        self._tracker.start_run(
            self._key,
            name=self._folder.path.name,
            params={name: str(value) for name, value in settings.items() if name not in ("resume", "definition")},
            tags={
                **tags,
                **as_tags(provenance),
                "kind": "search",
                "lives": str(self._life),
                "target": str(target) if target else "none published",
                "space": json.dumps(as_mapping(self._study.space)),
                "sampler_arguments": json.dumps({"name": settings["sampler"], "seed": settings["seed"]}),
            },
            dataset=dataset,
        )
        self._tracker.log_artifact(self._key, self._folder.path / "study.json")
        if self._life > 1:  # runs that a killed execution left RUNNING
            self._tracker.close_stale_runs(f"{self._search}/", [self._key])

    def summarise(self, records: Sequence[TrialRecord], study: optuna.Study) -> list[str]:
        """Draw the pictures, write the leaderboard and upload both; return a sentence for each problem."""
        problems: list[str] = []
        try:
            for path in draw_all(self._folder, self._study, list(records), study):
                self._tracker.log_artifact(self._key, path, "pictures")
        except Exception as error:  # a failed picture must not cost the leaderboard
            problems.append(f"pictures: {type(error).__name__}: {error}")
        self._tracker.log_artifact(self._key, self._folder.journal)
        table = self._folder.path / "leaderboard.md"
        try:
            table.write_text(leaderboard_markdown(self._study, records, top=50), encoding="utf-8")
            self._tracker.log_artifact(self._key, table)
        except OSError as error:  # a full disk; the table is still printed
            problems.append(f"{table.name}: {error}")
        numbers = summary(self._study, records)
        values = {
            "best_validation_error": numbers.best,
            "published_validation_error": numbers.published,
            "baseline_validation_error": numbers.baseline,
            **{f"trials_{state.lower()}": count for state, count in numbers.counts.items()},
        }
        now = int(steady_time() * 1000)
        points = [
            MetricPoint(name=name, value=float(value), step=self._life - 1, time_ms=now)
            for name, value in values.items()
            if value is not None
        ]
        self._tracker.log_metrics(self._key, points)
        return problems

    def end(self, status: RunStatus) -> None:
        self._tracker.end_run(self._key, status)


def dataset_input(own: TrialSpec, dataset: Dataset) -> DatasetInput:
    """Return the data set as runs name it, with the numbers of rows of the configuration ``own``."""
    split = own.member(dataset).split
    rows = {"labelled": len(split.labelled), "unlabelled": len(split.unlabelled), "validation": len(split.validation)}
    return DatasetInput(name=dataset.name, digest=dataset.digest, rows=rows)


def search_tags(study: Study, folder: str, search_id: str, git_sha: str) -> dict[str, str]:
    """Return the tags of all runs of a search; ``folder`` is the name of its study folder."""
    return {
        "study": study.name,
        "family": study.family,
        "measure": study.measure.name,
        "direction": study.measure.direction,
        "search": folder,
        "search_id": search_id,
        "git_sha": git_sha,
    }
