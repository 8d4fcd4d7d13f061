"""The recurrent ladder (Prémont-Schwarz et al. 2017, "Recurrent Ladder Networks"), for video and music.

Legend: levels l = 1..L, frames (or steps of music) t; ``x`` the input, ``e`` outputs of encoder cells, ``d`` outputs of
decoder cells. At every frame the encoder runs bottom-up and the decoder top-down, see ``nn.recurrence``. The decoder's
bottom predicts the next frame, and the top level's last ``e`` classifies.

The paper does not specify the layers. Our choices, besides those of ``nn.cells``: ``d`` and all states start at zero;
a fully connected top level returns ``d = leaky(W e + b)`` at the size of its features and gets no feedback; a frame's
prediction is that of its last iteration; the last frame of a video is not decoded, because it has no successor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST, COST_DECAY, COST_PREDICTION, COST_SUPERVISED
from ladder_search.nn.assembly import Assembly
from ladder_search.nn.cells import drawn, product
from ladder_search.nn.dropout import dropped
from ladder_search.nn.levels import read_levels, variation_of, vary_levels
from ladder_search.nn.network import Column, Teachable
from ladder_search.nn.notes import RARE, scored_nats
from ladder_search.nn.protocol import Batch, ModelConfig, Windows
from ladder_search.nn.recurrence import Bottom, Recurrence
from ladder_search.nn.steps import Found, Kind, Steps, as_maps, as_rows, averages, by_step, in_turn

_WEIGHTS = ("W", "D", "U", "V")
"""Parameters with weight decay; biases, scales and shifts have none."""

_HYPER = (("lambda_c", 1e6), ("lambda_p", 1e6), ("noise_std", 10.0), ("dropout", 0.95), ("weight_decay", 1.0))
"""Settings that enter a step as tensors, and their largest values."""

_AT_ONCE = 64
"""Steps of music scored at once, to limit memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentConfig(ModelConfig):
    """Settings of a recurrent ladder; the defaults are our reading of the paper's network for occluded digits."""

    task: Literal["video", "music"] = "video"
    """video: classify after the last frame, and predict each next frame; music: predict the notes of each next step."""
    frame: tuple[int, ...] = (1, 32, 32)
    """Channels, height and width of a frame; for music channels and pitches of a step."""
    frames: int = 5
    """Frames of a video; not used for music."""
    levels: tuple[str, ...] = (
        "conv:32:3:1 conv:32:3:2 lstm:32:3",
        "conv:64:3:2 lstm:64:3",
        "conv:128:3:2 dense-lstm:256",
    )
    """Levels 1..L in the notation of ``nn.levels``. Ours."""
    decoder: bool = True
    """False: only an encoder, without frame prediction; in music the top level then predicts the notes."""
    decoder_cell: Literal["g1", "g2", "g3"] = "g3"
    """Kind of decoder cell, see ``nn.cells``. That g1's function is the ladder's is unverified; g2 and g3 are ours."""
    feedback: bool = True
    """Whether convolutional cells read the last output of their level's decoder cell."""
    iterations: int = 1
    """Times that encoder and decoder run on each frame."""
    normalisation: Kind = "ln"
    """Normalisation of the inputs of convolutional cells and of decoder cells: by layer, as in the paper's video and
    music experiments, or by batch, as in its grouping experiments."""
    classes: int = 10
    """Classes of a video; 0: no classification. Not used for music."""
    unlabelled: bool = False
    """Whether to train on unlabelled sequences, for prediction and for a teacher."""
    prediction: Literal["mse", "bce"] = "bce"
    """Cost of a predicted pixel: squared error or cross-entropy of a sigmoid. Music always uses the latter."""
    lambda_c: float = 1.0
    """Weight of the classification cost. Ours. 0: no classification."""
    lambda_p: float = 10.0
    """Weight of the prediction cost, a mean over pixels and predicted frames. Ours. 0: decoder and feedback exist, but
    nothing is predicted. Not used for music, whose cost is the notes' negative log-likelihood per step."""
    noise_std: float = 0.0
    """Standard deviation of the Gaussian noise on the input; predicted frames have none."""
    dropout: float = 0.0
    """Dropout of the top level's output before classification; for music of every level's output before decoder or
    output layer. Maps lose whole channels. Connections within the encoder and over time have no dropout."""
    weight_decay: float = 0.0
    """Coefficient of half the sum of squared weights."""

    def __post_init__(self) -> None:
        self.assembly.check()
        if self.task == "music" and len(self.frame) != 2:
            raise SettingError(
                f"model.frame of music is channels and pitches, got {list(self.frame)}; write for example [1, 88]."
            )
        for name, value, least in (("frames", self.frames, 1), ("classes", self.classes, 0)):
            if value < least:
                raise SettingError(f"model.{name} must be at least {least}, got {value}; choose {least} or more.")
        if self.task == "video" and self.decoder and self.frames < 2:
            raise SettingError(
                f"with model.decoder=true there must be a next frame to predict, got model.frames={self.frames}; give "
                "2 or more, or decoder=false."
            )
        if self.task == "video" and not self.measures:
            raise SettingError(
                f"a network for video must classify or predict frames, got model.classes={self.classes} with "
                f"lambda_c={self.lambda_c:g}, and decoder={str(self.decoder).lower()} with lambda_p={self.lambda_p:g}; "
                "give it one of the two."
            )
        for name, high in _HYPER:
            in_range(f"model.{name}", getattr(self, name), 0.0, high)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example: a video, or one step of music, which may have any number of steps."""
        frame = self.frame if self.frame[0] > 1 else self.frame[1:]
        return (self.frames if self.task == "video" else 1, *frame)

    @property
    def assembly(self) -> Assembly:
        levels = read_levels(self.levels, self.frame)
        return Assembly(levels, self.decoder_cell if self.decoder else None, self.feedback, self.iterations)

    @property
    def outputs(self) -> int:
        """Number of outputs of the top level: classes, or notes without a decoder."""
        if self.task == "video":
            return self.classes if self.lambda_c > 0 else 0
        return 0 if self.decoder else math.prod(self.frame)

    @property
    def predicts(self) -> bool:
        """Whether the decoder has a bottom; without a prediction cost it is not built."""
        return self.decoder and (self.lambda_p > 0 or self.task == "music")

    @property
    def measures(self) -> tuple[str, ...]:
        if self.task == "music":
            return ("nll",)
        return ("error",) * (self.outputs > 0) + ("prediction_error",) * self.predicts

    @property
    def teachable(self) -> bool:
        return self.task == "video" and self.outputs > 0 and self.unlabelled

    @property
    def reads_unlabelled(self) -> bool:
        return self.unlabelled

    @property
    def statistics_batches(self) -> int:
        """Largest number of minibatches for test-time statistics; more change little. Ours."""
        return 50

    @property
    def in_turn(self) -> int:
        return self.iterations * (self.frames if self.task == "video" else 1)

    def variation(self) -> dict[str, int | str]:
        return variation_of(self.levels)

    def varied(self, variation: Mapping[str, int | str]) -> RecurrentConfig:
        return replace(self, levels=vary_levels(self.levels, variation))

    def signature(self) -> tuple[object, ...]:
        shape = (self.task, self.frame, self.frames, self.levels, self.decoder, self.decoder_cell, self.feedback)
        rest = (self.iterations, self.normalisation, self.classes, self.unlabelled, self.prediction)
        return (*shape, *rest, self.measures)

    def on_network_of(self, other: RecurrentConfig) -> RecurrentConfig:
        return replace(self, frame=other.frame, frames=other.frames, levels=other.levels, classes=other.classes)

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        n_classes = self.classes if self.task == "video" else 0
        if math.prod(self.example_shape) != pixels or n_classes not in (0, classes):
            raise SettingError(
                f"model.frames, model.frame and model.classes must be those of {dataset}, whose examples have {pixels} "
                f"numbers and {classes} classes, got {self.frames}, {list(self.frame)} and {self.classes}; correct."
            )

    def hyper(self) -> dict[str, list[float]]:
        return {name: [getattr(self, name)] for name, _ in _HYPER}

    def flops(self, labelled: int, unlabelled: int) -> float:
        music, rows = self.task == "music", labelled + (unlabelled if self.unlabelled else 0)
        frames = 1 if music else self.frames
        return rows * self.assembly.flops(frames=frames, begun=music, predicts=self.predicts, outputs=self.outputs)


class Trace(NamedTuple):
    """Outputs of a video network for every frame, with the stored statistics."""

    predicted: Tensor | None  # (rows, T, ...): each next frame; None without prediction
    probabilities: Tensor | None  # (rows, T, classes); None without classes
    bottom: Tensor | None  # (rows, T, channels, height, width): d^1; None without a decoder


class RecurrentLadder(Teachable):
    """A recurrent ladder; ``cost`` is the training cost, ``forward`` classifies or predicts.

    Parts: ``body``, encoder and decoder; ``bottom``, which predicts; ``W`` and ``b``, which classify from the top
    level, or predict notes. Labelled and unlabelled rows of a step share batch statistics, which is ours.
    """

    def __init__(self, config: RecurrentConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        self.levels = levels = config.assembly.levels
        self.frame = frame = levels[0].sizes[0]
        self.body = Recurrence(config.assembly, config.normalisation, generator)
        self.bottom = Bottom(frame, levels[0], generator) if config.predicts else None
        self._decoded = (config.frames - 1) * config.assembly.decodes(predicts=config.predicts)
        """Decoded frames of a video."""
        outputs = config.outputs
        self.W = drawn(outputs, math.prod(levels[-1].size), None, generator) if outputs else None
        self.b = nn.Parameter(torch.zeros(outputs)) if outputs else None
        output = self.b if self.bottom is None else self.bottom.c
        if config.task == "music" and output is not None:
            nn.init.constant_(output, RARE)

    @property
    def term_names(self) -> tuple[str, ...]:
        if self.config.task == "music":
            return (COST, COST_SUPERVISED, COST_DECAY)
        classifies, predicted = self.config.outputs > 0, self.config.predicts
        return (COST, *[COST_SUPERVISED] * classifies, *[COST_PREDICTION] * predicted, COST_DECAY)

    @property
    def measures(self) -> tuple[str, ...]:
        return self.config.measures

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        return self.body.carried if self.config.task == "music" else {}

    @property
    def widest(self) -> int:
        """Numbers in the largest map of one row, including all frames and gates that are evaluated together."""
        frames = self.config.frames if self.config.task == "video" else _AT_ONCE
        maps = [size for level in self.levels for size in level.sizes]
        return frames * max(*map(math.prod, maps), *(4 * math.prod(level.size) for level in self.levels))

    @property
    def _dropped(self) -> list[int]:
        """Channels of the outputs with dropout."""
        if self.config.task == "video":
            return [self.levels[-1].size[0]] if self.config.outputs else []
        return [level.size[0] for level in self.levels[0 if self.config.decoder else -1 :]]

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        rows = labelled + (unlabelled if self.config.unlabelled else 0)
        return rows * (math.prod(self.config.example_shape) + sum(self._dropped))

    def logits_noise_size(self, rows: int) -> int:
        return self.noise_size(rows, 0)

    def cost(
        self, batch: Batch | Windows, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the training cost of one step and its terms, and for windows their final state.

        ``noise`` is first that of the input, in its layout, then that of dropout, by row, or by row and step for music,
        with channels of the lowest level first. Rows of a ``Batch`` are (frames, height, width).
        """
        if isinstance(batch, Windows):
            return self._cost_of_windows(batch, noise, hyper)
        return self.cost_with_logits(batch, noise, hyper)[:2]

    def cost_with_logits(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the cost of a batch of videos, its terms, and the logits of labelled rows, then unlabelled ones."""
        config, n_lab = self.config, len(batch.x_labelled)
        x = torch.cat([batch.x_labelled, batch.x_unlabelled]) if config.unlabelled else batch.x_labelled
        rows, clean = len(x), as_maps(x, self.frame)
        noisy, drop = self._disturbed(x, noise, hyper)
        run = self.body(noisy, Steps(rows), decoded=self._decoded)
        logits, terms = None, {COST_DECAY: hyper["weight_decay"][0] * self.half_squares(_WEIGHTS)}
        if self.W is not None:
            logits = self._outputs(run.top[-rows:] * drop[0])
            terms[COST_SUPERVISED] = hyper["lambda_c"][0] * functional.cross_entropy(logits[:n_lab], batch.y)
        if self.bottom is not None and run.bottom is not None:
            predicted, targets = self.bottom(noisy[:-rows], run.bottom), clean[rows:]
            if config.prediction == "bce":
                error = functional.binary_cross_entropy_with_logits(predicted, targets)
            else:
                error = (torch.sigmoid(predicted) - targets).square().mean()
            terms[COST_PREDICTION] = hyper["lambda_p"][0] * error
        total, stacked = self._summed(terms)
        return total, stacked, logits

    def _cost_of_windows(
        self, windows: Windows, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        inputs, drop = self._disturbed(windows.inputs, noise, hyper)
        steps = Steps(len(windows.inputs), present=in_turn(windows.present))
        logits, state = self._notes(inputs, steps, dict(windows.carried), drop)
        nats, count = self._scored(logits, windows.targets, windows.scored)
        decay = hyper["weight_decay"][0] * self.half_squares(_WEIGHTS)
        terms = {COST_SUPERVISED: nats / count.clamp(min=1), COST_DECAY: decay}
        total, stacked = self._summed(terms)
        return total, stacked, {name: value.detach() for name, value in state.items()}

    def noisy_logits(
        self, x: Tensor, noise: Tensor, hyper: Mapping[str, Tensor], found: dict[str, Tensor] | None = None
    ) -> Tensor:
        noisy, drop = self._disturbed(x, noise, hyper)
        statistics: Found | None = None if found is None else {}
        # Statistics also include the decoder's norms, whether or not the logits depend on it.
        decoder = self.body.fed or (statistics is not None and self.body.decoder_norms)
        run = self.body(noisy, Steps(len(x), found=statistics), decoded=self._decoded if decoder else 0)
        if found is not None and statistics is not None:
            found |= averages(self, statistics)
        return self._outputs(run.top[-len(x) :] * drop[0])

    def statistics(self, x: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        """Return the test-time statistics: averages over minibatches and steps of mean and biased variance,
        (channels,).

        ``x`` are videos, (minibatches, rows, frames, height, width), or music, (minibatches, rows, steps, pitches),
        with ``present``, (minibatches, rows, steps), see ``Windows``.
        """
        video, found = self.config.task == "video", Found()
        for number, rows in enumerate(x):
            here = None if present is None else in_turn(present[number])
            steps, frames = Steps(len(rows), here, found=found), rows.shape[1]
            self.body(as_maps(rows, self.frame), steps, decoded=self._decoded if video else frames)
        return averages(self, found)

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities, (rows, classes), or predicted frames or probabilities of notes, with the shape of
        x.

        ``x`` are videos, (rows, frames, height, width), or music, (rows, steps, pitches).
        """
        if self.config.task == "music":
            frames, steps = as_maps(x, self.frame), Steps(len(x), stored=True)
            return as_rows(torch.sigmoid(self._notes(frames, steps, {}, None)[0]), x)
        if self.W is None:
            predicted = self.trace(x).predicted
            assert predicted is not None
            return predicted
        run = self.body(
            as_maps(x, self.frame), Steps(len(x), stored=True), decoded=self._decoded if self.body.fed else 0
        )
        return torch.softmax(self._outputs(run.top[-len(x) :]), dim=-1)

    def scores(self, x: Tensor, y: Tensor, scored: Tensor | None = None) -> Tensor:
        """Return sums for ``measures`` and their divisor: rows for videos; nats and steps, float64, for music.

        ``x`` are videos, (rows, frames, height, width), with classes ``y``, (rows,), or whole pieces, (rows, steps,
        pitches), with zeros after their end, targets ``y`` of that shape, and ``scored`` steps, (rows, steps).
        """
        rows, steps = len(x), Steps(len(x), stored=True)
        if scored is not None:
            total, state = x.new_zeros(2, dtype=torch.float64), dict[str, Tensor]()
            for part in range(0, x.shape[1], _AT_ONCE):
                here = slice(part, part + _AT_ONCE)
                logits, state = self._notes(as_maps(x[:, here], self.frame), steps, state, None)
                total = total + torch.stack(
                    [each.double() for each in self._scored(logits, y[:, here], scored[:, here])]
                )
            return total
        frames = as_maps(x, self.frame)
        run, sums = self.body(frames, steps, decoded=self._decoded), dict[str, Tensor]()
        if self.W is not None:
            sums["error"] = (self._outputs(run.top[-rows:]).argmax(-1) != y).sum().to(x.dtype)
        if self.bottom is not None and run.bottom is not None:
            predicted = torch.sigmoid(self.bottom(frames[:-rows], run.bottom))
            sums["prediction_error"] = (predicted - frames[rows:]).square().mean() * rows
        return torch.stack([*(sums[name] for name in self.measures), x.new_full((), rows)])

    def trace(self, x: Tensor) -> Trace:
        """Return the outputs for videos, (rows, frames, ...), at every frame, with the stored statistics."""
        rows, frames = len(x), as_maps(x, self.frame)
        run = self.body(frames, Steps(rows, stored=True), decoded=x.shape[1])
        predicted = probabilities = bottom = None
        if run.bottom is not None:
            bottom = by_step(run.bottom, rows).permute(1, 0, 4, 2, 3)
            if self.bottom is not None:
                predicted = as_rows(torch.sigmoid(self.bottom(frames, run.bottom)), x)
        if self.W is not None:
            probabilities = by_step(torch.softmax(self._outputs(run.top), -1), rows).transpose(0, 1)
        return Trace(predicted, probabilities, bottom)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _disturbed(self, x: Tensor, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the frames with noise, and the dropout factors of outputs, (…, 1, 1, channels) each."""
        noisy = as_maps(x + hyper["noise_std"][0] * noise[: x.numel()].view(x.shape), self.frame)
        draws, music = noise[x.numel() :], self.config.task == "music"
        draws = in_turn(draws.view(*x.shape[:2], -1)) if music else draws.view(len(x), -1)
        factors = dropped(torch.ones_like(draws), draws, hyper["dropout"][0])
        return noisy, [each[:, None, None] for each in torch.split(factors, self._dropped, -1)]

    def _outputs(self, e: Tensor) -> Tensor:
        """Return the top level's outputs: (rows, height, width, channels) -> (rows, classes or notes)."""
        assert self.W is not None
        return product(e.flatten(1), self.W, bias=self.b)

    def _notes(
        self, x: Tensor, steps: Steps, state: Mapping[str, Tensor], drop: list[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of each next step of music, as its frames, and the final state."""
        run = self.body(x, steps, decoded=len(x) // steps.rows, state=state, drop=drop)
        if self.bottom is not None:
            return self.bottom(x, run.bottom), run.state
        top = run.top if drop is None else run.top * drop[-1]
        return self._outputs(top).view(-1, *self.frame).permute(0, 2, 3, 1), run.state

    def _scored(self, logits: Tensor, targets: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nats of the scored steps, and their number."""
        notes = as_maps(targets, self.frame)
        return scored_nats(logits.flatten(1), notes.flatten(1), in_turn(scored))

    def _summed(self, terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        terms[COST] = torch.stack(list(terms.values())).sum()
        return terms[COST], torch.stack([terms[name] for name in self.term_names])
