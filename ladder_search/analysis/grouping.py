"""Analysis of a network that groups pixels: its groups after every iteration, or on every frame of a video.

The pictures follow figures 6 and 7 of Prémont-Schwarz et al. 2017. Scores are means over more images than are drawn.

Legend: n images or videos, T iterations (for videos, frames that are estimated), K groups, D = height x width pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.analysis.result import EXAMPLES, Part
from ladder_search.bundles.bundle import Bundle
from ladder_search.config import at_least_one, in_range
from ladder_search.data.dataset import Dataset
from ladder_search.data.permutation import check_seed, permutations
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.nn.ami import agreement
from ladder_search.nn.classes import wrong
from ladder_search.nn.grouping import SCORED_ROWS, Grouping
from ladder_search.training.feeding import feed_of_test_set, training_feed

MOST_ROWS = 12
"""Maximum number of images or videos in one picture."""
MOST_FRAMES = 20
"""Maximum number of generated frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingAnalysisConfig:
    """Settings of the analysis of groups."""

    rows: int = 4
    """Number of images or videos that are drawn."""
    judged: int = 1000
    """Number of images or videos that scores are averaged over, including the drawn ones; all if there are fewer."""
    seed: int = 1
    """Seed of the choice of images."""
    beyond: int = 5
    """Frames that are generated beyond the last one of each drawn video."""

    def __post_init__(self) -> None:
        in_range("beyond", self.beyond, 0, MOST_FRAMES)
        for name in ("rows", "judged"):
            at_least_one(name, getattr(self, name))
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownGroups:
    """One drawn image or video, by iteration. Maps are bytes, row by row in base64; see ``levels``."""

    number: int
    """Index of the image in its part of the data set."""
    classes: tuple[int, ...]
    """True classes; empty without classification."""
    output: tuple[int, ...]
    """As many most probable classes after the last iteration; empty without classification."""
    seen: tuple[str, ...]
    """The image without noise in grey levels 0..255, or the frame that is estimated."""
    truth: tuple[str, ...]
    """True segment of each pixel plus one; 0 is not scored."""
    groups: tuple[str, ...]
    """Most probable group of each pixel; of a video also in the generated frames, which come last."""
    reconstructions: tuple[tuple[str, ...], ...]
    """The image according to each group, in grey levels, for the same frames."""
    ami: tuple[float, ...]
    generated: tuple[str, ...] = ()
    """Frames beyond the last one of a video, as the network generates them from its own output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Measurements of a network by iteration; scores are means over ``judged`` images or videos."""

    height: int
    width: int
    n_groups: int
    video: bool
    judged: int
    ami: tuple[float, ...]
    ami_arithmetic: tuple[float, ...]
    error: tuple[float, ...]
    """Error of classification; empty without classes."""
    shown: tuple[ShownGroups, ...]

    @property
    def step(self) -> str:
        """What a column of the pictures is."""
        return "frame" if self.video else "iteration"

    @property
    def first(self) -> int:
        """Number of the first column: a network for video estimates the second frame first."""
        return 2 if self.video else 1


def choose(
    bundle: Bundle, dataset: Dataset, part: Part, settings: GroupingAnalysisConfig, rows: int | None
) -> tuple[GroupingAnalysisConfig, tuple[Part, Tensor]]:
    """Return the settings with the available number of rows, and which rows of ``part`` are evaluated; raise
    ``SettingError`` if the data set has no true segments, or more rows are requested than exist or can be drawn."""
    if dataset.grouped is None:
        raise SettingError(
            f"the analysis of groups needs a data set with true segments, got {dataset.name}; name a bundle of shapes, "
            "textured or moving digits."
        )
    among = np.arange(len(dataset.test_y))
    if part == "validation":
        among = bundle.spec.member(dataset).split.validation
    most = min(MOST_ROWS, len(among))
    if rows is not None and rows > most:
        raise SettingError(
            f"--rows must lie in 1..{most}, the images of a picture and of the {part} part of {dataset.name}, got "
            f"{rows}; give fewer."
        )
    count = min(settings.rows, most)
    judged = max(count, min(settings.judged, len(among)))
    order = permutations(len(among), seed=settings.seed, tag=EXAMPLES)[0]
    return replace(settings, rows=count, judged=judged), (part, torch.from_numpy(among[order[:judged]]))


def look(
    bundle: Bundle,
    dataset: Dataset,
    chosen: tuple[Part, Tensor],
    settings: GroupingAnalysisConfig,
    device: torch.device,
    report: Callable[[int, int, str], None] = lambda done, places, what: None,
) -> Groups:
    """Return the measurements of the bundle's network on the images; the first ``settings.rows`` are drawn. Raise
    ``CheckpointError`` if the network's answers are not finite."""
    network = bundle.module().to(device)
    assert isinstance(network, Grouping) and dataset.grouped is not None
    part, rows = chosen
    feed = (training_feed if part == "validation" else feed_of_test_set)(bundle.spec.member(dataset), dataset, device)
    height, width = _size(dataset.grouped.scene.shape)
    video, shown = network.frames > 1, list[ShownGroups]()
    totals: list[Tensor] = []
    dtype, done = next(network.parameters()).dtype, 0
    with torch.no_grad():
        for chunk in feed.chunks(rows.to(device).unsqueeze(0), SCORED_ROWS, dtype):
            x, y, segments = (each[0] for each in chunk)
            report(done, len(rows), f"{len(x)} images")
            trace = network.trace(x)
            if not torch.isfinite(trace.m).all() or not torch.isfinite(trace.z).all():
                raise CheckpointError(f"{bundle.folder} must have finite outputs, it has others; train it again.")
            T = len(trace.m)
            frames, true = x.reshape(len(x), network.frames, -1), segments.reshape(len(x), network.frames, -1)
            places = [t + 1 if video else 0 for t in range(T)]
            groups = trace.m.argmax(2)  # (T, n, D)
            by_step = [
                agreement(true[:, place], groups[t], n_labels=network.n_segments, n_groups=network.K)
                for t, place in enumerate(places)
            ]
            scores = [torch.stack([each.max for each in by_step]), torch.stack([each.arithmetic for each in by_step])]
            if trace.probabilities is not None:
                scores.append(torch.stack([wrong(p, y) for p in trace.probabilities]))
            totals.append(torch.stack([each.double().sum(1) for each in scores]))
            drawn = min(len(x), settings.rows - len(shown))
            made = network.generated(x[:drawn], settings.beyond) if video and settings.beyond and drawn > 0 else None
            for i in range(drawn):
                z, own = trace.z[:, i], groups[:, i]
                if made is not None:
                    z, own = torch.cat([z, made.z[:, i]]), torch.cat([own, made.m[:, i].argmax(1)])
                shown.append(
                    ShownGroups(
                        number=int(rows[done + i]),
                        **_classes(None if trace.probabilities is None else trace.probabilities[-1, i], y[i]),
                        seen=tuple(_grey(frames[i, place]) for place in places),
                        truth=tuple(_encoded(true[i, place] + 1) for place in places),
                        groups=tuple(_encoded(each) for each in own),
                        reconstructions=tuple(tuple(_grey(group) for group in each) for each in z),
                        ami=tuple(scores[0][:, i].tolist()),
                        generated=() if made is None else tuple(map(_grey, (made.m[:, i] * made.z[:, i]).sum(1))),
                    )
                )
            done += len(x)
    means = torch.stack(totals).sum(0) / len(rows)
    ami, arithmetic, *errors = (tuple(each) for each in means.tolist())
    return Groups(
        height=height,
        width=width,
        n_groups=network.K,
        video=video,
        judged=len(rows),
        ami=ami,
        ami_arithmetic=arithmetic,
        error=errors[0] if errors else (),
        shown=tuple(shown),
    )


def levels(image: str, found: Groups) -> NDArray[np.uint8]:
    """Return a map of a ``ShownGroups``: uint8 [height, width]."""
    return np.frombuffer(base64.b64decode(image), np.uint8).reshape(found.height, found.width)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of an image, which is square if its shape is flat."""
    if len(shape) > 1:
        return shape[-2], shape[-1]
    side = round(shape[0] ** 0.5)
    return side, side


def _classes(probabilities: Tensor | None, y: Tensor) -> dict[str, tuple[int, ...]]:
    if probabilities is None:
        return {"classes": (), "output": ()}
    true = [int(y)] if y.dim() == 0 else y.nonzero().flatten().tolist()
    best = probabilities.argsort(descending=True)[: len(true)]
    return {"classes": tuple(true), "output": tuple(sorted(best.tolist()))}


def _grey(values: Tensor) -> str:
    """Return pixels, 0..1, as grey levels."""
    return _encoded(255 * values.clamp(0, 1))


def _encoded(values: Tensor) -> str:
    return base64.b64encode(values.round().to("cpu", torch.uint8).numpy().tobytes()).decode()
