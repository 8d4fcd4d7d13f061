"""The structure of a recurrent ladder's levels: which levels can run ahead, and the number of operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ladder_search.errors import SettingError
from ladder_search.nn.cells import DECODER_CELLS, ENCODER_CELLS
from ladder_search.nn.levels import Level


@dataclass(frozen=True, slots=True)
class Assembly:
    """Levels 1..L with or without a decoder."""

    levels: tuple[Level, ...]
    decoder_cell: str | None
    """Key of ``nn.cells.DECODER_CELLS``; None without a decoder."""
    feedback: bool
    """Whether convolutional cells read the decoder's last d."""
    iterations: int
    """Times that encoder and decoder run on each frame."""

    def check(self) -> None:
        """Raise ``SettingError`` unless the levels fit together."""
        if self.iterations < 1:
            raise SettingError(f"model.iterations must be at least 1, got {self.iterations}; choose 1 or more.")
        if self.decoder_cell is not None and any(level.cell.dense for level in self.levels[:-1]):
            raise SettingError(
                "with model.decoder=true only the top of model.levels may be fully connected, got another among "
                f"{len(self.levels)}; take away the others, or the decoder."
            )

    @property
    def fed(self) -> tuple[int, ...]:
        """Levels, from 0, whose cells read d: those with filters."""
        if self.decoder_cell is None or not self.feedback:
            return ()
        return tuple(i for i, level in enumerate(self.levels) if level.cell.kernel is not None)

    @property
    def ahead(self) -> int:
        """Number of levels, from below, that run over all frames before the next level does.

        These are the levels below the first recurrent one, or all levels if no frame depends on the decoder.
        """
        if self.iterations == 1 and not self.fed:
            return len(self.levels)
        return next((i for i, level in enumerate(self.levels) if level.cell.recurrent), len(self.levels))

    def decodes(self, *, predicts: bool) -> bool:
        """Whether the decoder is needed, for predictions or for feedback."""
        return predicts or bool(self.fed)

    def flops(self, *, frames: int, begun: bool, predicts: bool, outputs: int) -> float:
        """Return the floating-point operations of one row's products, forward and backward.

        Args:
            begun: whether the row continues from a state and has a target for its last frame, as in music. A video's
                first states are zero, which saves their products, and its last frame is not decoded.
            predicts: whether frames are predicted.
            outputs: number of outputs of the top level.
        """
        decoded = (frames - (not begun)) * self.decodes(predicts=predicts)
        passes = decoded + (self.iterations - 1) * frames * bool(self.fed)
        products = (
            self._encoder(frames, begun=begun) + passes * self._decoder() + math.prod(self.levels[-1].size) * outputs
        )
        if predicts:
            products += decoded * self._bottom()
        return 2.0 * (3 * products - frames * self._first())

    def _encoder(self, frames: int, *, begun: bool) -> int:
        total = 0
        for i, level in enumerate(self.levels):
            features, runs = level.features, frames * (1 if i < self.ahead else self.iterations)
            times = frames if i <= self.ahead else runs  # features of the first sequential level are computed ahead
            total += times * sum(
                layer.channels * below[0] * math.prod(layer.kernel) * math.prod(size[1:])
                for layer, below, size in zip(level.convolutions, level.sizes, level.sizes[1:], strict=False)
            )
            if level.cell.units:
                outputs = math.prod(level.size) * ENCODER_CELLS[level.cell.kind].parts
                filters = math.prod(level.cell.kernel or (1, 1))
                total += times * outputs * filters * (math.prod(features) if level.cell.dense else features[0])
                read = level.cell.units * (level.cell.recurrent + (i in self.fed))
                total += (runs - (not begun)) * outputs * filters * read
        return total

    def _decoder(self) -> int:
        if self.decoder_cell is None:
            return 0
        top, cell = self.levels[-1], DECODER_CELLS[self.decoder_cell]
        total = math.prod(top.decoded) * top.size[0] * (1 if top.cell.dense else math.prod(top.kernels[-1]))
        for level, above in pairwise(self.levels):
            weights = cell.weights(level.size[0], above.decoded[0]) * math.prod(level.kernels[-1])
            total += weights * math.prod(level.size[1:])
        return total

    def _first(self) -> int:
        """Return the product size of the layer that reads the input."""
        level = self.levels[0]
        if level.convolutions:
            layer = level.convolutions[0]
            return layer.channels * level.sizes[0][0] * math.prod(layer.kernel) * math.prod(level.sizes[1][1:])
        cell = level.cell
        read = math.prod(level.features) if cell.dense else level.features[0] * math.prod(cell.kernel or (1, 1))
        return math.prod(level.size) * ENCODER_CELLS[cell.kind].parts * read

    def _bottom(self) -> int:
        (channels, *places), above = self.levels[0].sizes[0], self.levels[0].decoded[0]
        return (
            (above * (above + channels) + channels * above) * math.prod(self.levels[0].kernels[0]) * math.prod(places)
        )
