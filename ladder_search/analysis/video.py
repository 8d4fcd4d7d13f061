"""Analysis of a recurrent ladder on occluded digits, frame by frame: predictions, classes and memory.

The pictures follow figure 4 of Prémont-Schwarz et al. 2017; errors are means over more sequences than are drawn. A
network that classifies optimal reconstructions receives one image and has neither prediction nor probe.

Legend: n sequences, T frames of S x S pixels; reconstructions have d x d pixels, the size of the digit.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.analysis.probe import Probe, fit_probe
from ladder_search.analysis.result import EXAMPLES, Part, Report, among_rows, check_finite, check_rows, silent
from ladder_search.bundles.bundle import Bundle
from ladder_search.config import at_least_one
from ladder_search.data.dataset import Dataset
from ladder_search.data.occluded import Renderer, seen_so_far
from ladder_search.data.occluded_bounds import PredictionBounds, prediction_bounds
from ladder_search.data.permutation import check_seed, permutations
from ladder_search.errors import SettingError
from ladder_search.models.recurrent import RecurrentLadder
from ladder_search.nn.mean_teacher import Taught
from ladder_search.training.feeding import feed_of_test_set, training_feed
from ladder_search.training.feeds import MovingDigits
from ladder_search.training.seeding import PROBE, derive

MOST_ROWS = 24
"""Maximum number of sequences in one picture."""
_PROBED = 1000
"""Number of training sequences for the probe."""
_AT_ONCE = 100
"""Sequences of a batch; bounds memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """Settings of the analysis of videos."""

    rows: int = 6
    """Number of sequences that are drawn."""
    judged: int = 1000
    """Number of sequences that errors are averaged over, including the drawn ones; all if there are fewer."""
    probe_steps: int = 300
    """Training steps of the probe."""
    seed: int = 1
    """Seed of the sequences, and of those that the probe is trained on."""

    def __post_init__(self) -> None:
        for name in ("rows", "judged", "probe_steps"):
            at_least_one(name, getattr(self, name))
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSequence:
    """One drawn sequence. Images are grey levels 0..255, row by row in base64; see ``levels``."""

    number: int
    """Index of the digit in its part of the data set."""
    label: int
    truth: tuple[str, ...]
    """Each frame without its bars, or the digit."""
    seen: tuple[str, ...]
    """Input of the network."""
    predicted: tuple[str, ...]
    """Frames 2..T, each as predicted one frame before; empty without prediction."""
    probed: tuple[str, ...]
    """Each frame without its bars, as decoded by the probe; empty without a decoder."""
    probabilities: tuple[tuple[float, ...], ...]
    """Class probabilities after each frame; empty without classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeErrors:
    """Mean squared errors per pixel of reconstructions of the frames without bars, after each frame."""

    network: tuple[float, ...]
    """Errors of the probe."""
    occluded: tuple[float, ...]
    """Errors of each frame as the network sees it."""
    memory: tuple[float, ...]
    """Errors of the known motion of every pixel seen so far, with 0 for the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """Measurements of a network; errors are means over ``judged`` sequences."""

    side: int
    bars: tuple[int, ...]
    """Rows, and columns, of an image that bars hide."""
    judged: int
    shown: tuple[ShownSequence, ...]
    class_error: tuple[float, ...]
    """Error of the predicted class after each frame, although only the last is trained; empty without classes."""
    prediction_error: tuple[float, ...]
    """Mean squared error per pixel of frames 2..T; empty without prediction."""
    bounds: PredictionBounds | None
    """The same for predictors with much or no information; None without prediction."""
    probe: ProbeErrors | None

    @property
    def frames(self) -> int:
        return len(self.shown[0].seen)


def choose(
    bundle: Bundle, dataset: Dataset, part: Part, settings: VideoConfig, rows: int | None
) -> tuple[VideoConfig, tuple[Part, Tensor]]:
    """Return the settings with the available number of rows, and which digits of ``part`` are evaluated; raise
    ``SettingError`` if nothing moves in the data set, or more rows are requested than exist or can be drawn."""
    if dataset.moving is None or bundle.spec.data.preprocessing != "none":
        raise SettingError(
            f"the analysis of networks for video needs digits that move, and are not whitened, got {dataset.name} with "
            f"data.preprocessing={bundle.spec.data.preprocessing}; name a bundle of an occluded data set."
        )
    among = among_rows(bundle, dataset, part)
    most = min(MOST_ROWS, len(among))
    if rows is not None:
        check_rows(rows, most, f"the sequences of a picture and of the {part} part of {dataset.name}")
    count = min(settings.rows, most)
    judged = max(count, min(settings.judged, len(among)))
    order = permutations(len(among), seed=settings.seed, tag=EXAMPLES)[0]
    return replace(settings, rows=count, judged=judged), (part, torch.from_numpy(among[order[:judged]]))


def look(
    bundle: Bundle,
    dataset: Dataset,
    shown: tuple[Part, Tensor],
    settings: VideoConfig,
    device: torch.device,
    report: Report = silent,
) -> Video:
    """Return the measurements of the bundle's network on the sequences; the first ``settings.rows`` are drawn. Raise
    ``CheckpointError`` if the network's answers are not finite."""
    module, member = bundle.module().to(device), bundle.spec.member(dataset)
    network = module.teacher if isinstance(module, Taught) else module
    assert isinstance(network, RecurrentLadder), type(network)
    part, numbers = shown
    feed = training_feed if part == "validation" else feed_of_test_set
    moving = _moving(feed(member, dataset, device))
    probe = None
    if network.bottom is not None or network.body.fed:
        report(0, 2, "the probe")
        training = _moving(training_feed(member, dataset, device))
        probe = _probe(network, training, member.split.unlabelled, settings)
    report(1 if probe else 0, 2 if probe else 1, f"{len(numbers)} sequences")
    return _evaluated(network, moving, settings.rows, numbers.to(device), probe)


def levels(image: str, side: int) -> NDArray[np.uint8]:
    """Return an image of a ``ShownSequence``: uint8 [side, side]."""
    return np.frombuffer(base64.b64decode(image), np.uint8).reshape(side, side)


@dataclass(frozen=True, slots=True)
class _Scenes:
    """Sequences of a feed: digits (n, d, d) in 0..1 and their positions (n, T, 2)."""

    renderer: Renderer
    digits: Tensor
    positions: Tensor
    reconstructed: bool

    @property
    def seen(self) -> Tensor:
        """The network's input, (n, T, S, S)."""
        if self.reconstructed:
            return (self.digits * self._known[:, -1]).unsqueeze(1)
        return self.renderer.frames(self.digits, self.positions)

    @property
    def truth(self) -> Tensor:
        """The same without bars."""
        if self.reconstructed:
            return self.digits.unsqueeze(1)
        return self.renderer.frames(self.digits, self.positions, occluded=False)

    @property
    def memory(self) -> Tensor:
        """All pixels seen so far, at their positions in each frame."""
        digits = (self.digits.unsqueeze(1) * self._known).flatten(0, 1)
        places = self.positions.flatten(0, 1).unsqueeze(1)
        return self.renderer.frames(digits, places, occluded=False).view_as(self.truth)

    @property
    def _known(self) -> Tensor:
        return seen_so_far(self.renderer.visible(self.positions))


def _evaluated(network: RecurrentLadder, feed: MovingDigits, rows: int, numbers: Tensor, probe: Probe | None) -> Video:
    """Return the measurements on sequences ``numbers`` of a feed, of which the first ``rows`` are drawn."""
    n, dtype = len(numbers), next(network.parameters()).dtype
    sums: dict[str, Tensor] = {}
    sequences: list[ShownSequence] = []
    for chunk in torch.split(numbers, _AT_ONCE):
        scenes = _scenes(feed, chunk, feed.fixed_key, chunk, dtype)
        images = _chunk(network, scenes, feed.y[chunk], probe, sums)
        count = max(0, min(rows - len(sequences), len(chunk)))
        sequences += [_shown(int(chunk[i]), int(feed.y[chunk[i]]), images, i) for i in range(count)]
    check_finite(sums.values())
    means = {name: tuple((value / n).tolist()) for name, value in sums.items()}
    predicts = "prediction" in means
    everything = _scenes(feed, numbers, feed.fixed_key, numbers, torch.float32)
    hidden = [] if feed.reconstructed else [i for i, free in enumerate(feed.scene.visible) if not free]
    return Video(
        side=feed.scene.digit if feed.reconstructed else feed.scene.side,
        bars=tuple(hidden),
        judged=n,
        shown=tuple(sequences),
        class_error=means.get("wrong", ()),
        prediction_error=means.get("prediction", ()),
        bounds=prediction_bounds(feed.renderer, everything.digits, everything.positions) if predicts else None,
        probe=ProbeErrors(network=means["probe"], occluded=means["occluded"], memory=means["memory"])
        if probe is not None
        else None,
    )


def _chunk(
    network: RecurrentLadder, scenes: _Scenes, y: Tensor, probe: Probe | None, sums: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Add to the sums, frame by frame, and return the arrays to draw."""

    def add(name: str, values: Tensor) -> None:
        total = values.double().sum(0)
        sums[name] = sums[name] + total if name in sums else total

    seen, truth = scenes.seen, scenes.truth
    trace = network.trace(seen)
    images = {"seen": seen, "truth": truth}
    if trace.probabilities is not None:
        images["probabilities"] = trace.probabilities
        add("wrong", trace.probabilities.argmax(-1) != y.unsqueeze(-1))
    if trace.predicted is not None:
        images["predicted"] = predicted = trace.predicted[:, :-1]  # the frame after the last does not exist
        add("prediction", _error(predicted, seen[:, 1:]))
    if probe is not None and trace.bottom is not None:
        read = probe(trace.bottom.flatten(0, 1), truth.shape[-1]).view_as(truth)
        images["probed"] = read
        for name, guess in (("probe", read), ("occluded", seen), ("memory", scenes.memory)):
            add(name, _error(guess, truth))
    return images


def _probe(network: RecurrentLadder, feed: MovingDigits, own: NDArray[np.int64], settings: VideoConfig) -> Probe:
    """Train a probe on unseen sequences of training digits."""
    chosen = own[permutations(len(own), seed=settings.seed, tag=EXAMPLES)[0][:_PROBED]]
    rows = torch.from_numpy(chosen).to(feed.x.device)
    numbers = torch.arange(len(rows), device=feed.x.device)
    dtype, maps, targets = next(network.parameters()).dtype, [], []
    for chunk in torch.split(numbers, _AT_ONCE):
        scenes = _scenes(feed, rows[chunk], derive(settings.seed, PROBE), chunk, dtype)
        bottom = network.trace(scenes.seen).bottom
        assert bottom is not None
        maps.append(bottom.flatten(0, 1))
        targets.append(scenes.truth.flatten(0, 1))
    d, frames = torch.cat(maps), torch.cat(targets)
    stride = -(-frames.shape[-1] // d.shape[-1])
    return fit_probe(d, frames, stride=stride, steps=settings.probe_steps, seed=settings.seed)


def _scenes(feed: MovingDigits, rows: Tensor, key: int, numbers: Tensor, dtype: torch.dtype) -> _Scenes:
    """Return sequences ``numbers`` of a stream with the digits ``rows``."""
    digits = feed.x[rows].to(dtype) / feed.full_scale
    return _Scenes(feed.renderer, digits, feed.renderer.positions(key, numbers), feed.reconstructed)


def _shown(number: int, label: int, found: dict[str, Tensor], row: int) -> ShownSequence:
    images = {
        name: tuple(_encoded(frames[row])) if (frames := found.get(name)) is not None else ()
        for name in ("truth", "seen", "predicted", "probed")
    }
    probabilities = found["probabilities"][row].tolist() if "probabilities" in found else []
    return ShownSequence(number=number, label=label, probabilities=tuple(map(tuple, probabilities)), **images)


def _encoded(frames: Tensor) -> Iterator[str]:
    grey = (frames.clamp(0.0, 1.0) * 255.0).round().to("cpu", torch.uint8)
    return (base64.b64encode(frame.numpy().tobytes()).decode() for frame in grey)


def _error(guess: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over pixels: (n, T, S, S) -> (n, T)."""
    return (guess - truth).square().mean((-2, -1))


def _moving(feed: object) -> MovingDigits:
    assert isinstance(feed, MovingDigits), type(feed)
    return feed
