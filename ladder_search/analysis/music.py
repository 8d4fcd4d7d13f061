"""Analysis of a network for music: its predictions for pieces as piano rolls, and their calibration.

Numbers are pooled over the steps of all pieces of a part, without first steps, which are predicted from silence. They
are compared with the Markov model of the training pieces, which conditions each note on its own last value. Networks
run in double precision, so that no probability rounds to 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ladder_search.analysis.result import EXAMPLES, Part, Report, among_rows, check_finite, check_rows, silent
from ladder_search.bundles.bundle import Bundle
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, LOWEST_NOTE, FlatCorpus
from ladder_search.data.music_batches import evaluation_batches, steps, whole
from ladder_search.data.music_markov import markov
from ladder_search.data.permutation import check_seed, permutations
from ladder_search.errors import SettingError

MOST_ROWS, MOST_STEPS = 12, 400
"""Maximum number of pieces, each a picture, and of steps that a picture can resolve."""
BINS = 10
WORST = 5
_STEPS_AT_ONCE = 4096
"""Rows times steps of a batch; bounds memory."""
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True, kw_only=True, slots=True)
class MusicConfig:
    """Settings of the analysis of music."""

    rows: int = 1
    """Number of pieces that are drawn: the longest that fits into a picture, and random others."""
    steps: int = 128
    """Steps of a picture; longer pieces are cut."""
    seed: int = 1
    """Seed of the other pieces."""

    def __post_init__(self) -> None:
        for name, most in (("rows", MOST_ROWS), ("steps", MOST_STEPS)):
            if not 1 <= getattr(self, name) <= most:
                raise SettingError(
                    f"--{name} of music must lie in 1..{most}, got {getattr(self, name)}; give a number of this range."
                )
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownPiece:
    """One drawn piece, step by step; notes are MIDI numbers."""

    number: int
    length: int
    """Steps of the whole piece."""
    notes: tuple[tuple[int, ...], ...]
    """Notes that sound at each step."""
    probabilities: tuple[tuple[float, ...], ...]
    """Probability of every key, from the lowest up, given the preceding steps; rounded to four decimals."""
    nats: tuple[float, ...]
    markov: tuple[float, ...]
    """Cost of each step for the Markov model, which assumes silence before the first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Notes with a probability in ``low`` .. ``high``."""

    low: float
    high: float
    notes: int
    predicted: float | None
    """Mean of their probabilities; None without notes."""
    sounded: float | None
    """Share of them that sounded; equal to ``predicted`` for calibrated probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstStep:
    """A step with a high cost."""

    piece: int
    step: int
    """Number from 1, as in pictures."""
    nats: float
    notes: tuple[int, ...]
    missed: int
    """The note, sounding or silent, with the highest cost."""
    probability: float
    """Its predicted probability to sound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PianoRolls:
    pieces: int
    steps: int
    """Number of scored steps."""
    nll: float
    """Nats per step."""
    markov_nll: float
    calibration: tuple[Bin, ...]
    worst: tuple[WorstStep, ...]
    """Steps with the highest cost, in descending order."""
    shown: tuple[ShownPiece, ...]


@dataclass(frozen=True, slots=True)
class _Chosen:
    corpus: FlatCorpus
    pieces: NDArray[np.int64]
    """Pieces of the part, as indices of the corpus."""
    drawn: tuple[int, ...]
    """Drawn pieces, as indices of ``pieces``."""


def choose(
    bundle: Bundle, dataset: Dataset, part: Part, settings: MusicConfig, rows: int | None
) -> tuple[MusicConfig, _Chosen]:
    """Return the settings, and which pieces of ``part`` are evaluated and drawn; raise ``SettingError`` if the data set
    has no pieces, or fewer than requested."""
    pieces = dataset.pieces
    if pieces is None:
        raise SettingError(
            f"the analysis of networks for music needs pieces and {dataset.name} has none; name a bundle of a corpus."
        )
    if part == "test":
        corpus = FlatCorpus(notes=dataset.test_x, first=pieces.test_first, lengths=pieces.test_lengths)
    else:
        corpus = FlatCorpus(notes=dataset.train_x, first=pieces.first, lengths=pieces.lengths)
    among = among_rows(bundle, dataset, part)
    check_rows(settings.rows, min(MOST_ROWS, len(among)), f"the {part} pieces of {dataset.name}")
    lengths = corpus.lengths[among]
    fits = np.where(lengths <= settings.steps, lengths, -lengths)  # if none fits, the shortest is nearest
    first = int(fits.argmax())
    others = [int(place) for place in permutations(len(among), seed=settings.seed, tag=EXAMPLES)[0] if place != first]
    return settings, _Chosen(corpus, among, (first, *others[: settings.rows - 1]))


def look(
    bundle: Bundle,
    dataset: Dataset,
    shown: _Chosen,
    settings: MusicConfig,
    device: torch.device,
    report: Report = silent,
) -> PianoRolls:
    """Return the predictions of the bundle's network for the pieces; raise ``CheckpointError`` if the network's answers
    are not finite."""
    network = bundle.module().to(device).double()
    corpus, lengths = shown.corpus, shown.corpus.lengths[shown.pieces]
    notes = torch.from_numpy(np.array(corpus.notes)).to(device)
    by_markov = markov(_training_pieces(dataset)).to(device)
    place_of = {place: number for number, place in enumerate(shown.drawn)}
    drawings: dict[int, ShownPiece] = {}
    counted = _Counted()
    batches = evaluation_batches(lengths, _STEPS_AT_ONCE)
    for done, batch in enumerate(batches):
        report(done, len(batches), f"{len(batch)} pieces of {lengths[batch].max()} steps at most")
        segments = whole(shown.pieces[batch], corpus.lengths)
        table = steps(corpus, segments, int(segments.length.max()), score_first=False)
        inputs, targets = (notes[torch.from_numpy(at).to(device)].double() for at in (table.inputs, table.targets))
        p = network(inputs)
        check_finite([p])
        markov_p = torch.sigmoid(torch.where(inputs > 0, by_markov[1], by_markov[0]))
        nats, markov_nats = (functional.binary_cross_entropy(q, targets, reduction="none") for q in (p, markov_p))
        counted.add(p, targets, nats, markov_nats.sum(-1), torch.from_numpy(table.scored).to(device), batch)
        for row, place in enumerate(batch.tolist()):
            if place in place_of:
                width = min(settings.steps, int(lengths[place]))
                played = (each[row, :width] for each in (targets, p, nats.sum(-1), markov_nats.sum(-1)))
                drawings[place_of[place]] = _shown(place, int(lengths[place]), *played)
    return counted.found(len(lengths), tuple(drawings[number] for number in range(len(drawings))))


def note_name(note: int) -> str:
    """Return the name of a MIDI note: 60 -> ``C4``."""
    return f"{_NAMES[note % 12]}{note // 12 - 1}"


class _Counted:
    """Sums over steps, updated in batches."""

    def __init__(self) -> None:
        self._nats = self._markov = 0.0
        self._steps = 0
        self._bins = torch.zeros(3, BINS, dtype=torch.float64)
        self._worst: list[WorstStep] = []

    def add(
        self, p: Tensor, targets: Tensor, nats: Tensor, markov_nats: Tensor, scored: Tensor, numbers: NDArray[np.int64]
    ) -> None:
        """Add a batch: ``p``, ``targets`` and ``nats`` of every note, (rows, T, 88); ``markov_nats`` and ``scored`` of
        every step, (rows, T); ``numbers`` of the pieces, [rows]."""
        each = nats.sum(-1)
        self._nats += float(each[scored].sum())
        self._markov += float(markov_nats[scored].sum())
        self._steps += int(scored.sum())
        p_counted, sounded = p[scored].flatten().cpu(), targets[scored].flatten().cpu()
        which = (p_counted * BINS).long().clamp(max=BINS - 1)
        for place, weights in enumerate((torch.ones_like(p_counted), p_counted, sounded)):
            self._bins[place] += torch.bincount(which, weights, minlength=BINS)
        among = torch.where(scored, each, -1.0).flatten()
        for place in torch.topk(among, min(WORST, int(scored.sum()))).indices.tolist():
            row, step = divmod(place, each.shape[1])
            missed = int(nats[row, step].argmax())
            self._worst.append(
                WorstStep(
                    piece=int(numbers[row]),
                    step=step + 1,
                    nats=float(each[row, step]),
                    notes=_sounding(targets[row, step]),
                    missed=LOWEST_NOTE + missed,
                    probability=float(p[row, step, missed]),
                )
            )
        self._worst = sorted(self._worst, key=lambda one: -one.nats)[:WORST]

    def found(self, pieces: int, shown: tuple[ShownPiece, ...]) -> PianoRolls:
        if not self._steps:
            raise SettingError(
                "the error of music is measured on the steps after the first of each piece, and there are none; "
                "choose other data."
            )
        bins = zip(*self._bins.tolist(), strict=True)
        return PianoRolls(
            pieces=pieces,
            steps=self._steps,
            nll=self._nats / self._steps,
            markov_nll=self._markov / self._steps,
            calibration=tuple(
                Bin(
                    low=place / BINS,
                    high=(place + 1) / BINS,
                    notes=int(count),
                    predicted=predicted / count if count else None,
                    sounded=sounded / count if count else None,
                )
                for place, (count, predicted, sounded) in enumerate(bins)
            ),
            worst=tuple(self._worst),
            shown=shown,
        )


def _shown(number: int, length: int, targets: Tensor, p: Tensor, nats: Tensor, markov_nats: Tensor) -> ShownPiece:
    return ShownPiece(
        number=number,
        length=length,
        notes=tuple(_sounding(step) for step in targets),
        probabilities=tuple(tuple(round(value, 4) for value in step) for step in p.tolist()),
        nats=tuple(nats.tolist()),
        markov=tuple(markov_nats.tolist()),
    )


def _sounding(step: Tensor) -> tuple[int, ...]:
    return tuple(LOWEST_NOTE + key for key in step.nonzero().flatten().tolist())


def _training_pieces(dataset: Dataset) -> Sequence[NDArray[np.uint8]]:
    pieces = dataset.pieces
    assert pieces is not None and dataset.train_x.shape[1] == KEYS
    spans = zip(pieces.first[: pieces.training], pieces.lengths[: pieces.training], strict=True)
    return [np.asarray(dataset.train_x[first : first + length]) for first, length in spans]
