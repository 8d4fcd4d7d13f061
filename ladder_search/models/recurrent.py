"""The recurrent ladder (Prémont-Schwarz et al. 2017, "Recurrent Ladder Networks"), on video and on music.

Legend: levels l = 1..L, frames (or steps of music) t; ``x`` the input, ``e`` outputs of encoder cells, ``d`` those of
decoder cells. The encoder goes up and the decoder down at every frame, see ``nn.recurrence``; the decoder's bottom
predicts the next frame, and the top level's last ``e`` tells the class.

The published text leaves the layers open. Ours, beside what ``nn.cells`` says: ``d`` and all states begin with zeros; a
fully connected top level gives ``d = leaky(W e + b)`` at the size of its features and reads none back; each frame's
prediction is that of its last iteration, and the last frame of a video is not decoded, because nothing comes after it.
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
"""Parameters that are decayed: not biases, scales and shifts."""

_HYPER = (("lambda_c", 1e6), ("lambda_p", 1e6), ("noise_std", 10.0), ("dropout", 0.95), ("weight_decay", 1.0))
"""Settings that enter a step as tensors, and the largest value of each."""

_AT_ONCE = 64
"""Steps of music that are scored together: bounds their memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentConfig(ModelConfig):
    """Settings of one recurrent ladder; the defaults are our reading of the paper's network for occluded digits."""

    task: Literal["video", "music"] = "video"
    """video: classes after the last frame, and each next frame; music: the notes of each next step."""
    frame: tuple[int, ...] = (1, 32, 32)
    """Channels, height and width of a frame; channels and pitches of a step of music."""
    frames: int = 5
    """Of a video; music is as long as its windows."""
    levels: tuple[str, ...] = (
        "conv:32:3:1 conv:32:3:2 lstm:32:3",
        "conv:64:3:2 lstm:64:3",
        "conv:128:3:2 dense-lstm:256",
    )
    """Levels 1..L in the notation of ``nn.levels``. Ours."""
    decoder: bool = True
    """False: an encoder only, which predicts no frame; the notes of music are then read from the top level."""
    decoder_cell: Literal["g1", "g2", "g3"] = "g3"
    """Kind of decoder cell, see ``nn.cells``. That g1's function is the ladder's is unverified; g2 and g3 are ours."""
    feedback: bool = True
    """Whether convolutional cells read what their level's decoder cell gave last."""
    iterations: int = 1
    """Times that encoder and decoder run on each frame."""
    normalisation: Kind = "ln"
    """Of the inputs of convolutional cells and in decoder cells: by layer, as in the paper's video and music, or by
    batch, as in its grouping."""
    classes: int = 10
    """Of a video; 0: none are told. Music has none, whatever is set."""
    unlabelled: bool = False
    """Whether unlabelled sequences are trained on: for their prediction, and for a teacher."""
    prediction: Literal["mse", "bce"] = "bce"
    """Cost of a predicted pixel: squared error or cross-entropy, of the same sigmoid. Music has the latter."""
    lambda_c: float = 1.0
    """Weight of the classification cost. Ours. 0: classes are not told."""
    lambda_p: float = 10.0
    """Weight of the prediction cost, which is a mean over pixels and predicted frames. Ours. 0: decoder and feedback
    are there, but predict nothing. In music the cost is the notes' negative log-likelihood a step, whatever is set."""
    noise_std: float = 0.0
    """Standard deviation of the Gaussian noise on the input; what is predicted has none."""
    dropout: float = 0.0
    """Of the top level's output, where classes are told from it; of every level's output, where decoder or output
    layer of a network for music reads it. A map loses whole channels. Up the encoder and on in time nothing is lost."""
    weight_decay: float = 0.0
    """Multiplies half the sum of squared weights."""

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
                f"a network for video must tell classes or predict frames, got model.classes={self.classes} with "
                f"lambda_c={self.lambda_c:g}, and decoder={str(self.decoder).lower()} with lambda_p={self.lambda_p:g}; "
                "give it one of the two."
            )
        for name, high in _HYPER:
            in_range(f"model.{name}", getattr(self, name), 0.0, high)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example: a video, or music of one step, which may have any number of them."""
        frame = self.frame if self.frame[0] > 1 else self.frame[1:]
        return (self.frames if self.task == "video" else 1, *frame)

    @property
    def assembly(self) -> Assembly:
        """How the levels are put together."""
        levels = read_levels(self.levels, self.frame)
        return Assembly(levels, self.decoder_cell if self.decoder else None, self.feedback, self.iterations)

    @property
    def told(self) -> int:
        """Numbers that are read from the top level: classes, or notes where nothing else predicts them."""
        if self.task == "video":
            return self.classes if self.lambda_c > 0 else 0
        return 0 if self.decoder else math.prod(self.frame)

    @property
    def predicts(self) -> bool:
        """Whether the decoder's bottom is there. Without a cost nothing reads it, nor the top level's classes."""
        return self.decoder and (self.lambda_p > 0 or self.task == "music")

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by: what it is trained for."""
        if self.task == "music":
            return ("nll",)
        return ("error",) * (self.told > 0) + ("prediction_error",) * self.predicts

    @property
    def teachable(self) -> bool:
        """Whether the network can have a mean teacher: it classifies, unlabelled sequences among others."""
        return self.task == "video" and self.told > 0 and self.unlabelled

    @property
    def reads_unlabelled(self) -> bool:
        return self.unlabelled

    @property
    def statistics_batches(self) -> int:
        """Largest number of minibatches that test-time statistics are averaged over: more change little. Ours."""
        return 50

    @property
    def in_turn(self) -> int:
        """How many times a step runs encoder and decoder one after the other."""
        return self.iterations * (self.frames if self.task == "video" else 1)

    def variation(self) -> dict[str, int | str]:
        return variation_of(self.levels)

    def varied(self, variation: Mapping[str, int | str]) -> RecurrentConfig:
        """Return these settings with other channels, kernels, cells or units in the levels."""
        return replace(self, levels=vary_levels(self.levels, variation))

    def signature(self) -> tuple[object, ...]:
        shape = (self.task, self.frame, self.frames, self.levels, self.decoder, self.decoder_cell, self.feedback)
        rest = (self.iterations, self.normalisation, self.classes, self.unlabelled, self.prediction)
        return (*shape, *rest, self.measures)

    def on_network_of(self, other: RecurrentConfig) -> RecurrentConfig:
        """These settings on the levels of ``other``."""
        return replace(self, frame=other.frame, frames=other.frames, levels=other.levels, classes=other.classes)

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        told = self.classes if self.task == "video" else 0
        if math.prod(self.example_shape) != pixels or told not in (0, classes):
            raise SettingError(
                f"model.frames, model.frame and model.classes must be those of {dataset}, whose examples have {pixels} "
                f"numbers and {classes} classes, got {self.frames}, {list(self.frame)} and {self.classes}; correct."
            )

    def hyper(self) -> dict[str, list[float]]:
        return {name: [getattr(self, name)] for name, _ in _HYPER}

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Floating-point operations of one step's products, for that many rows of each kind, or steps of music."""
        music, rows = self.task == "music", labelled + (unlabelled if self.unlabelled else 0)
        frames = 1 if music else self.frames
        return rows * self.assembly.flops(frames=frames, begun=music, predicts=self.predicts, told=self.told)


class Trace(NamedTuple):
    """What a network for video makes of every frame, under the stored statistics."""

    predicted: Tensor | None  # (rows, T, ...): each next frame; None where nothing is predicted
    probabilities: Tensor | None  # (rows, T, classes); None without classes
    bottom: Tensor | None  # (rows, T, channels, height, width): d^1; None without a decoder


class RecurrentLadder(Teachable):
    """One recurrent ladder. ``cost`` is what a training step differentiates, ``forward`` tells classes or predicts.

    Parts: ``body``, encoder and decoder; ``bottom``, which predicts; ``W`` and ``b``, which tell classes by the top
    level, or notes where there is no decoder.

    Rows of a step, labelled and unlabelled, have their batch statistics together: that is ours.
    """

    def __init__(self, config: RecurrentConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        self.levels = levels = config.assembly.levels
        self.frame = frame = levels[0].sizes[0]
        self.body = Recurrence(config.assembly, config.normalisation, generator)
        self.bottom = Bottom(frame, levels[0], generator) if config.predicts else None
        self._decoded = (config.frames - 1) * config.assembly.decodes(predicts=config.predicts)
        """Frames of a video that are decoded."""
        told = config.told
        self.W = drawn(told, math.prod(levels[-1].size), None, generator) if told else None
        self.b = nn.Parameter(torch.zeros(told)) if told else None
        output = self.b if self.bottom is None else self.bottom.c
        if config.task == "music" and output is not None:
            nn.init.constant_(output, RARE)

    @property
    def term_names(self) -> tuple[str, ...]:
        if self.config.task == "music":
            return (COST, COST_SUPERVISED, COST_DECAY)
        told, predicted = self.config.told > 0, self.config.predicts
        return (COST, *[COST_SUPERVISED] * told, *[COST_PREDICTION] * predicted, COST_DECAY)

    @property
    def measures(self) -> tuple[str, ...]:
        return self.config.measures

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of a row's state in music, see ``Recurrence``."""
        return self.body.carried if self.config.task == "music" else {}

    @property
    def widest(self) -> int:
        """Numbers in the largest map of one row, with all frames and gates that are evaluated together."""
        frames = self.config.frames if self.config.task == "video" else _AT_ONCE
        maps = [size for level in self.levels for size in level.sizes]
        return frames * max(*map(math.prod, maps), *(4 * math.prod(level.size) for level in self.levels))

    @property
    def _dropped(self) -> list[int]:
        """Channels of the outputs that dropout acts on."""
        if self.config.task == "video":
            return [self.levels[-1].size[0]] if self.config.told else []
        return [level.size[0] for level in self.levels[0 if self.config.decoder else -1 :]]

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        rows = labelled + (unlabelled if self.config.unlabelled else 0)
        return rows * (math.prod(self.config.example_shape) + sum(self._dropped))

    def logits_noise_size(self, rows: int) -> int:
        return self.noise_size(rows, 0)

    def cost(
        self, batch: Batch | Windows, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the training cost of one step and its terms, and for windows the state in which they end.

        Args:
            batch: each row of it (frames, height, width); or windows.
            noise: (noise_size,): of the input, laid out as it is, and then of dropout, channels of the lowest level
                first, rows by rows; in music steps of a row by steps.
            hyper: those of ``RecurrentConfig.hyper``.
        """
        if isinstance(batch, Windows):
            return self._cost_of_windows(batch, noise, hyper)
        return self.cost_with_logits(batch, noise, hyper)[:2]

    def cost_with_logits(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the cost of a batch of videos, its terms, and the logits of the labelled, then the unlabelled rows."""
        config, n_lab = self.config, len(batch.x_labelled)
        x = torch.cat([batch.x_labelled, batch.x_unlabelled]) if config.unlabelled else batch.x_labelled
        rows, clean = len(x), as_maps(x, self.frame)
        noisy, drop = self._disturbed(x, noise, hyper)
        run = self.body(noisy, Steps(rows), decoded=self._decoded)
        logits, terms = None, {COST_DECAY: hyper["weight_decay"][0] * self.half_squares(_WEIGHTS)}
        if self.W is not None:
            logits = self._told(run.top[-rows:] * drop[0])
            terms[COST_SUPERVISED] = hyper["lambda_c"][0] * functional.cross_entropy(logits[:n_lab], batch.y)
        if self.bottom is not None and run.bottom is not None:
            predicted, wanted = self.bottom(noisy[:-rows], run.bottom), clean[rows:]
            if config.prediction == "bce":
                error = functional.binary_cross_entropy_with_logits(predicted, wanted)
            else:
                error = (torch.sigmoid(predicted) - wanted).square().mean()
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
        noted: Found | None = None if found is None else {}
        # A decoder's norms have statistics, too, whether or not the logits need it.
        decoder = self.body.fed or (noted is not None and self.body.decoder_norms)
        run = self.body(noisy, Steps(len(x), found=noted), decoded=self._decoded if decoder else 0)
        if found is not None and noted is not None:
            found |= averages(self, noted)
        return self._told(run.top[-len(x) :] * drop[0])

    def statistics(self, x: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        """Test-time statistics: averages over minibatches and steps of each one's mean and biased variance.

        Args:
            x: minibatches of videos, (minibatches, rows, frames, height, width), or of music from zero states,
                (minibatches, rows, steps, pitches).
            present: of music, (minibatches, rows, steps), see ``Windows``.

        Returns:
            buffer name -> value, (channels,).
        """
        video, found = self.config.task == "video", Found()
        for number, rows in enumerate(x):
            here = None if present is None else in_turn(present[number])
            steps, frames = Steps(len(rows), here, found=found), rows.shape[1]
            self.body(as_maps(rows, self.frame), steps, decoded=self._decoded if video else frames)
        return averages(self, found)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is told under the stored statistics.

        Args:
            x: videos, (rows, frames, height, width), or music, (rows, steps, pitches).

        Returns:
            class probabilities, (rows, classes); without classes each next frame, as x; the probabilities of each next
            step's notes, as x.
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
        return torch.softmax(self._told(run.top[-len(x) :]), dim=-1)

    def scores(self, x: Tensor, y: Tensor, scored: Tensor | None = None) -> Tensor:
        """Return a sum over rows for every entry of ``measures``, and at last what they are divided by.

        Args:
            x: videos, (rows, frames, height, width), or whole pieces of music from their first step on, (rows, steps,
                pitches), zero where they have ended.
            y: classes, (rows,); of music the targets, as x.
            scored: of music, (rows, steps): which steps count.

        Returns:
            wrong rows, each row's squared error per pixel and predicted frame, rows; of music nats and steps, float64.
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
        run, found = self.body(frames, steps, decoded=self._decoded), dict[str, Tensor]()
        if self.W is not None:
            found["error"] = (self._told(run.top[-rows:]).argmax(-1) != y).sum().to(x.dtype)
        if self.bottom is not None and run.bottom is not None:
            predicted = torch.sigmoid(self.bottom(frames[:-rows], run.bottom))
            found["prediction_error"] = (predicted - frames[rows:]).square().mean() * rows
        return torch.stack([*(found[name] for name in self.measures), x.new_full((), rows)])

    def trace(self, x: Tensor) -> Trace:
        """Return what becomes of videos, (rows, frames, ...), frame by frame, under the stored statistics."""
        rows, frames = len(x), as_maps(x, self.frame)
        run = self.body(frames, Steps(rows, stored=True), decoded=x.shape[1])
        predicted = probabilities = bottom = None
        if run.bottom is not None:
            bottom = by_step(run.bottom, rows).permute(1, 0, 4, 2, 3)
            if self.bottom is not None:
                predicted = as_rows(torch.sigmoid(self.bottom(frames, run.bottom)), x)
        if self.W is not None:
            probabilities = by_step(torch.softmax(self._told(run.top), -1), rows).transpose(0, 1)
        return Trace(predicted, probabilities, bottom)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _disturbed(self, x: Tensor, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the frames with noise, and what outputs are multiplied by, (…, 1, 1, channels) each."""
        noisy = as_maps(x + hyper["noise_std"][0] * noise[: x.numel()].view(x.shape), self.frame)
        draws, music = noise[x.numel() :], self.config.task == "music"
        draws = in_turn(draws.view(*x.shape[:2], -1)) if music else draws.view(len(x), -1)
        kept = dropped(torch.ones_like(draws), draws, hyper["dropout"][0])
        return noisy, [each[:, None, None] for each in torch.split(kept, self._dropped, -1)]

    def _told(self, e: Tensor) -> Tensor:
        """What the top level tells: (rows, height, width, channels) -> (rows, classes or notes)."""
        assert self.W is not None
        return product(e.flatten(1), self.W, bias=self.b)

    def _notes(
        self, x: Tensor, steps: Steps, state: Mapping[str, Tensor], drop: list[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of each next step of music, as its frames, and the last state."""
        run = self.body(x, steps, decoded=len(x) // steps.rows, state=state, drop=drop)
        if self.bottom is not None:
            return self.bottom(x, run.bottom), run.state
        top = run.top if drop is None else run.top * drop[-1]
        return self._told(top).view(-1, *self.frame).permute(0, 2, 3, 1), run.state

    def _scored(self, logits: Tensor, targets: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nats of the steps that are scored, and their number."""
        wanted = as_maps(targets, self.frame)
        return scored_nats(logits.flatten(1), wanted.flatten(1), in_turn(scored))

    def _summed(self, terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        terms[COST] = torch.stack(list(terms.values())).sum()
        return terms[COST], torch.stack([terms[name] for name in self.term_names])
