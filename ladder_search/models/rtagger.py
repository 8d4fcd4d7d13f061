"""RTagger (Prémont-Schwarz et al. 2017, section 5): Tagger with one recurrent ladder per group, for images and videos.

Legend: ``x_tilde``, ``z``, ``m``, ``delta_z`` and ``L`` as in ``nn.likelihoods``; ``e`` outputs of encoder cells and
``d`` of decoder cells, as in ``nn.recurrence``. In every iteration each group's recurrent ladder, with shared weights,
reads the maps ``[z, delta_z, m, L]``; its bottom returns z and m, and its top's ``e`` the classes. The states of cells
and the feedback of the decoder persist over iterations. Of a video an iteration reads one frame; z estimates the next.

The paper does not specify the layers. Ours, besides the choices of ``nn.cells``: the bottom is
``V leaky(norm(W [u, inputs]) + ...) + c`` with two outputs per pixel; no noise but that of the pixels; batch
normalisation (appendix A.4) is over groups, rows and positions of one iteration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import MOST_ITERATIONS
from ladder_search.nn.assembly import Assembly
from ladder_search.nn.cells import RECTIFIED, drawn, leaky, product
from ladder_search.nn.grouping import (
    EVALUATION,
    TRAINING,
    Grouping,
    GroupingConfig,
    Inferred,
    Normalisation,
    measures_of,
)
from ladder_search.nn.levels import Level, Size, read_levels, variation_of, vary_levels
from ladder_search.nn.likelihoods import LIKELIHOODS
from ladder_search.nn.network import Column
from ladder_search.nn.recurrence import Recurrence, upsampled
from ladder_search.nn.steps import Found, Kind, Steps, averages, make_norm

_INPUTS = 4
"""Maps that a recurrent ladder reads: z, delta_z, m, L."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RTaggerConfig(GroupingConfig):
    """Settings of RTagger; the defaults are our reading of the paper's network for textured digits."""

    groups: int = 2
    iterations: int = 3
    """Iterations on an image in training; a video has one per frame but the last."""
    evaluation_iterations: int = 3
    likelihood: Literal["binary", "continuous"] = "continuous"
    initial_z: float = 0.5
    side: tuple[int, int] = (28, 28)
    """Height and width of an image or frame."""
    frames: int = 1
    """Frames of a video; 1: images."""
    levels: tuple[str, ...] = (
        "conv:32:3:1 conv:32:3:2 lstm:32:3",
        "conv:64:3:2 lstm:64:3",
        "conv:128:3:2 dense-lstm:256",
    )
    """Levels 1..L in the notation of ``nn.levels``. Ours."""
    decoder_cell: Literal["g1", "g2", "g3"] = "g3"
    """Kind of decoder cell, see ``nn.cells``."""
    feedback: bool = True
    """Whether convolutional cells read the last output of their level's decoder cell."""
    stateful: bool = True
    """Whether the states of cells persist over iterations."""
    norm: Kind = "bn"
    """Normalisation of the inputs of convolutional cells, in decoder cells and at the bottom: by batch, as in the
    paper's grouping experiments, or by layer. Convolutions between cells are always normalised by batch."""
    statistics: Literal["batch", "stored"] = "batch"
    """Batch statistics of evaluations and of the exported network: those of the evaluated batch and iteration, as in
    Tagger's code, or averages over minibatches and iterations of training rows, as in the recurrent family."""

    def __post_init__(self) -> None:
        self.check_groups()
        in_range("model.frames", self.frames, 1, MOST_ITERATIONS + 1)
        self.assembly.check()
        if self.frames == 2:
            raise SettingError("model.frames must be 1, for images, or at least 3, got 2; choose 3 or more.")

    @property
    def assembly(self) -> Assembly:
        levels = read_levels(self.levels, (_INPUTS, *self.side))
        return Assembly(levels, self.decoder_cell, self.feedback, 1)

    @property
    def steps(self) -> int:
        """Iterations of evaluations; for videos one per frame but the last."""
        return self.evaluation_iterations if self.frames == 1 else self.frames - 1

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (math.prod(self.side),) if self.frames == 1 else (self.frames, *self.side)

    @property
    def measures(self) -> tuple[str, ...]:
        return measures_of(classes=self.classes, iterations=self.steps, judged_by=self.judged_by)

    @property
    def statistics_batches(self) -> int:
        """Largest number of minibatches for stored statistics; more change little. Ours."""
        return 20 if self.statistics == "stored" else 1

    @property
    def in_turn(self) -> int:
        return self.iterations if self.frames == 1 else self.frames - 1

    def variation(self) -> dict[str, int | str]:
        return variation_of(self.levels)

    def varied(self, variation: Mapping[str, int | str]) -> RTaggerConfig:
        return replace(self, levels=vary_levels(self.levels, variation))

    def signature(self) -> tuple[object, ...]:
        network = (self.side, self.frames, self.levels, self.decoder_cell, self.feedback, self.stateful)
        return (*network, self.norm, self.statistics, *self.group_signature())

    def on_network_of(self, other: RTaggerConfig) -> RTaggerConfig:
        network = replace(self, side=other.side, frames=other.frames, levels=other.levels)
        return replace(network, groups=other.groups, classes=other.classes)

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the operations of a recurrent ladder that predicts all its inputs, for every group and iteration."""
        outputs = self.classes + 1 if self.classes else 0
        one = self.assembly.flops(frames=self.in_turn, begun=True, predicts=True, outputs=outputs)
        return self.rows(labelled, unlabelled) * self.groups * one

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        if math.prod(self.example_shape) != pixels or self.classes not in (0, classes):
            raise SettingError(
                f"model.side, model.frames and model.classes must be those of {dataset}, whose examples have {pixels} "
                f"pixels and {classes} classes, or 0 classes, got {list(self.side)}, {self.frames} and {self.classes}; "
                "correct them."
            )


class Outputs(nn.Module):
    """The decoder cell of level 0: ``V leaky(norm(W [u, inputs])) + c``, z and m before their nonlinearities."""

    def __init__(self, size: Size, level: Level, norm: Kind, generator: torch.Generator) -> None:
        super().__init__()
        kernel, above = level.kernels[0], level.decoded[0]
        self.size, self.stride = size, level.stride
        self.W = drawn(above, above + size[0], kernel, generator, gain=RECTIFIED)
        self.norm = make_norm(norm, above)
        self.V = drawn(2, above, kernel, generator)
        self.c = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: Tensor, d: Tensor, steps: Steps) -> Tensor:
        u = upsampled(d, self.stride, self.size)
        h = leaky(self.norm(product(torch.cat([u, inputs], -1), self.W), steps))
        return product(h, self.V, bias=self.c)


class RTagger(Grouping):
    """RTagger. Parts: ``body``, encoder and decoder; ``bottom``; ``W`` and ``b``, which classify from the top level."""

    def __init__(self, config: RTaggerConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        self.K, self.D, self.classes, self.unlabelled = (
            config.groups,
            math.prod(config.side),
            config.classes,
            config.unlabelled,
        )
        self.frames, self.iterations, self.evaluation_iterations = config.frames, config.in_turn, config.steps
        self.n_segments = config.segments
        self.likelihood = LIKELIHOODS[config.likelihood](config.noise, config.initial_w, config.w_rate)
        levels = config.assembly.levels
        self.body = Recurrence(config.assembly, config.norm, generator)
        self.bottom = Outputs(levels[0].sizes[0], levels[0], config.norm, generator)
        with torch.no_grad():
            self.bottom.V[0] *= config.initial_scale
            self.bottom.c[0] = config.initial_mean
        outputs = config.classes + 1
        self.W = drawn(outputs, math.prod(levels[-1].size), None, generator) if config.classes else None
        self.b = nn.Parameter(torch.zeros(outputs)) if config.classes else None
        self._largest = max(math.prod(size) for level in levels for size in level.sizes)

    @property
    def measures(self) -> tuple[str, ...]:
        return self.config.measures

    @property
    def widest(self) -> int:
        return 4 * self.K * self._largest

    def inferences(
        self, x_tilde: Sequence[Tensor], m: Tensor, normalisation: Normalisation = TRAINING
    ) -> list[Inferred]:
        K, rows, _ = m.shape
        steps = Steps(
            K * rows, stored=normalisation.stored and self.config.statistics == "stored", found=normalisation.found
        )
        z = read = torch.full_like(m, self.config.initial_z)
        state: Mapping[str, Tensor] = {}
        found = []
        for observed in x_tilde:
            delta_z, L = self.likelihood.evidence(observed, z, m)
            inputs = torch.stack([read, delta_z, m, L], dim=-1).view(K * rows, *self.config.side, _INPUTS)
            run = self.body(inputs, steps, decoded=1, state=state)
            assert run.bottom is not None, "there is a decoder"
            # What does not persist starts anew: the feedback has a setting of its own.
            state = run.state if self.config.stateful else {n: v for n, v in run.state.items() if n.startswith("d")}
            z_pre, m_pre = self.bottom(inputs, run.bottom, steps).view(K, rows, -1, 2).unbind(-1)
            z, read, m = self.likelihood.estimate(z_pre), self.likelihood.read(z_pre), torch.softmax(m_pre, dim=0)
            logits = None
            if self.W is not None:
                logits = product(run.top.flatten(1), self.W, bias=self.b).view(K, rows, -1)
            found.append(Inferred(z, m, logits))
        return found

    @property
    def scored_rows(self) -> int | None:
        return None if self.config.statistics == "stored" else super().scored_rows

    def statistics(self, *minibatches: Tensor) -> dict[str, Tensor]:
        """Return averages over minibatches and iterations of mean and biased variance, (channels,).

        Args: ``minibatches``: one tensor of images or videos, (minibatches, rows, ...).
        """
        found = Found()
        for rows in minibatches[0]:
            self._evaluated(rows, EVALUATION._replace(stored=False, found=found))
        return averages(self, found)
