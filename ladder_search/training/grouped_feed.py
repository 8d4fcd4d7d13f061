"""The feed of images of several objects, which are drawn on the device; see ``data.drawing``.

A training batch has images and classes only: no true segment is among the inputs of a cost. Scoring inputs have the
segments if the network is judged by its groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ladder_search.data.drawing import TRAINING, Painter, Scene, part_key, partners, step_keys
from ladder_search.training.feeds import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedImages(TrainingData):
    """Images of several objects: ``x`` are the digits, (n, d, d), or (n, 0) for images without any.

    Each training step draws new images, or shows the fixed one of each row, as the scene defines; evaluations always
    show the fixed ones. Images of two digits have two classes, as k-hot rows.
    """

    scene: Scene
    painter: Painter
    part: int
    """Part of the fixed images."""
    n_classes: int
    numbers: Tensor
    """0, 1, ... for the rows of a step, stored as a tensor instead of computed by the program."""
    shape: tuple[int, ...]
    """Shape of a network input."""
    scored: bool
    """Whether scoring inputs have the true segments."""

    def gather(
        self, x: Tensor, y: Tensor, rows: Sequence[Tensor], keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        labelled, unlabelled = rows
        n = labelled.shape[-1]
        images, classes = self._of_step(x, y, labelled, keys, 0, dtype)
        return images, classes, self._of_step(x, y, unlabelled, keys, n, dtype)[0]

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        for chunk in torch.split(rows, max(1, at_once), dim=1):
            flat = chunk.flatten()
            images, classes, segments = self._drawn(self.x, self.y, flat, part_key(self.part), flat, self.part, dtype)
            inputs = (images, classes, segments) if self.scored else (images, classes)
            yield tuple(each.view(*chunk.shape, *each.shape[1:]) for each in inputs)

    def drawn(self, x: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        return self._of_step(x, self.y, rows, keys, first, dtype)[0]

    def fixed(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        flat = rows.flatten()
        images = self._drawn(self.x, self.y, flat, part_key(self.part), flat, self.part, dtype)[0]
        return images.view(*rows.shape, *self.shape)

    def _of_step(
        self, x: Tensor, y: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        members, n = rows.shape
        flat = rows.flatten()
        if self.scene.redrawn:
            numbers = self.numbers[first : first + n].repeat(members)
            images, classes, _ = self._drawn(x, y, flat, step_keys(keys).repeat_interleave(n), numbers, TRAINING, dtype)
        else:
            images, classes, _ = self._drawn(x, y, flat, part_key(self.part), flat, TRAINING, dtype)
        return images.view(members, n, *self.shape), classes.view(members, n, *classes.shape[1:])

    def _drawn(
        self,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        key: int | Tensor,
        numbers: Tensor,
        part: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return images (n, ...), classes (n,) or k-hot (n, classes), and segments of rows, int64 (n,)."""
        digits, classes = None, y[rows]
        if self.scene.digits:
            of_image = partners(key, numbers, rows, self.scene.digits, len(x))  # (n, digits)
            digits = x[of_image]
            if self.scene.digits > 1:
                own = torch.arange(self.n_classes, device=y.device)
                classes = (y[of_image].unsqueeze(-1) == own).any(-2).long()
        images, segments = self.painter.draw(digits, key, numbers, part)
        return images.view(len(rows), *self.shape).to(dtype) / self.full_scale, classes, segments
