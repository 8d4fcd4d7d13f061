"""A recorded trial trained again from its record, and the comparison of every metric of every epoch.

On the same machine, with the same arrangement (steps compiled or not, the same number of slots), all metrics are equal
to the bit. Otherwise they differ by rounding, which training amplifies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.metrics import DRAW, DRAW_ERROR, EPOCH, VALIDATION_ERROR, validation_score
from ladder_search.record.trial import TrialRecord
from ladder_search.trial import TrialSpec

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Largest deviation of one metric."""

    metric: str
    epoch: int
    recorded: float | None
    replayed: float | None
    """None if not finite, as in a record."""

    @property
    def relative(self) -> float:
        """Distance, relative to the larger of the two; infinite if only one of them is finite."""
        if self.recorded is None or self.replayed is None:
            return 0.0 if self.recorded is self.replayed else math.inf
        largest = max(abs(self.recorded), abs(self.replayed))
        return abs(self.recorded - self.replayed) / largest if largest else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    epochs: int
    deviations: tuple[Deviation, ...]
    """One for each metric."""

    @property
    def largest(self) -> Deviation:
        return max(self.deviations, key=lambda one: one.relative)

    @property
    def equal(self) -> bool:
        """Whether all values are the same to the bit."""
        return self.largest.relative == 0.0


def replay(
    record: TrialRecord,
    dataset: Dataset,
    *,
    arrangement: Mapping[str, Any],
    device: torch.device,
    folder: Path,
    most_epochs: int | None = None,
    report: Callable[[int, int], None] = lambda epoch, epochs: None,
) -> Replay:
    """Train a recorded trial again and compare it with its record.

    Args:
        arrangement: of the search, ``arrangement`` in its ``study.json``: whether steps were compiled, and slots.
        folder: the study folder, which holds the networks of earlier stages.
        most_epochs: compare only so many epochs; None: all that were recorded.
        report: called after every epoch with it and with the number of epochs.

    Raise ``SettingError`` if the record has no epoch.
    """
    recorded = {int(row[EPOCH]): row for row in record.epochs}
    if not recorded:
        raise SettingError(f"a replay needs a trial that was trained, and {record.key} has no epoch; choose another.")
    epochs = min(max(recorded), most_epochs or max(recorded))
    spec, in_turn = TrialSpec.from_mapping(record.settings), record.epochs[0].get(DRAW) is not None
    draws = 1 if in_turn else spec.draws
    slots = draws * int(arrangement.get("slots", 1))
    pack = spec.pack(dataset, slots=slots, compiled=bool(arrangement.get("compiled")), device=device)
    steps, length = spec.member(dataset).steps_per_epoch, spec.training.epochs
    shelf = Shelf(folder / FOLDER, device=device)
    seated: list[int] = []
    found: dict[str, Deviation] = {}
    for epoch in range(1, epochs + 1):
        if not seated or (in_turn and epoch % length == 1 % length):
            for slot in seated:
                pack.leave(slot)
            first = (epoch - 1) // length if in_turn else 0
            members = [
                spec.member(dataset, draw, sources=shelf.networks(spec, draw)) for draw in range(first, first + draws)
            ]
            seated = [pack.join(member) for member in members]
        reports, scores = pack.run(steps, slots=seated), pack.validation_scores(slots=seated)
        measured = {
            **{name: fmean(reports[slot].terms[name] for slot in seated) for name in reports[seated[0]].terms},
            **{name: fmean(scores[slot][name] for slot in seated) for name in scores[seated[0]]},
        }
        if epoch in recorded:
            _compare(found, epoch, recorded[epoch], measured, spec.measure.name)
        report(epoch, epochs)
    return Replay(epochs=epochs, deviations=tuple(found.values()))


def _compare(found: dict[str, Deviation], epoch: int, row: Row, measured: Mapping[str, float], judged_by: str) -> None:
    """Add the deviations of an epoch; ``judged_by`` is the measure whose value the record calls the error."""
    # The value of the epoch itself: of its draw, or without the best epoch so far.
    own = next(name for name in (DRAW_ERROR, validation_score(judged_by), VALIDATION_ERROR) if name in row)
    for name, value in measured.items():
        key = own if name == judged_by else name if name in row else validation_score(name)
        if key not in row or (DRAW in row and key.startswith(validation_score("")) and key != own):
            continue  # a mean over draws
        finite = value if math.isfinite(value) else None
        deviation = Deviation(metric=key, epoch=epoch, recorded=row[key], replayed=finite)
        if key not in found or deviation.relative > found[key].relative:
            found[key] = deviation
