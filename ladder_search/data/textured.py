"""Textured digits: digits with a texture each on a background with another (Greff et al. 2016; Prémont-Schwarz et al.
2017). A digit differs from the background in its texture only, not in its mean brightness.

With textures t and masks m of the digits in the order of their depth, an image of two digits is
t_0 (1 - m_1)(1 - m_2) + t_1 m_1 (1 - m_2) + t_2 m_2. Masks are soft, because digits have grey levels; a pixel is scored
if its largest mask exceeds 0.9. The background is a segment. Everything is computed in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.drawing import TEST, TRAINING, UNSCORED, Painter, Scene, choices, draws
from ladder_search.data.textures import DEPTH, HEIGHT, PHOTOGRAPH, SIDE, WIDTH, sinusoids
from ladder_search.errors import SettingError

TEXTURES = 20
_ANGLES, _UNIT = 256, 4096
"""Rotations of photographs, and the denominator of their sines."""
_PIXEL = 256
"""Fractions of a photograph's pixel in which places are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TexturedScene(Scene):
    """Textured digits on ``side`` x ``side`` pixels; lengths in pixels."""

    kind: Literal["sinusoids", "photographs"] = "sinusoids"
    side: int = 28
    digit: int = 28
    """Side of a digit, to which its image is downscaled."""
    n_digits: int = 1
    shift: int = 0
    """Two digits are moved by this up and left, and down and right; parts outside the image are cut."""
    thickened: bool = False
    """Whether digits are thickened by a maximum over 3 x 3 pixels before they are downscaled."""
    sharpened: bool = False
    """Whether the contrast of digits is doubled around its middle. Scikit-learn's digits are enlarged and have wide
    edges, with which less than half of the pixels would be scored; those of MNIST are drawn as they are."""
    fresh: bool = False
    """Whether each training step draws textures and places anew; otherwise every row has one image."""
    scales: tuple[int, int] = (192, 320)
    """Smallest and largest scale of photographs in training, in 1/256. Ours."""

    def __post_init__(self) -> None:
        if self.n_digits not in (1, 2):
            raise SettingError(f"an image of textured digits has 1 or 2 digits, got {self.n_digits}; choose one.")
        if self.digit > self.side or (self.side - self.digit) % 2:
            raise SettingError(
                f"digits of {self.digit} pixels must fit into the middle of {self.side}; choose a digit that is "
                "smaller by an even number."
            )
        room = SIDE if self.kind == "sinusoids" else WIDTH - 2 * self.reach
        if (self.side > SIDE) if self.kind == "sinusoids" else (room < 1):
            raise SettingError(f"a texture must be larger than an image of {self.side} pixels; choose 28.")

    @property
    def reach(self) -> int:
        """Largest distance in a photograph from an image's centre to what it shows."""
        return math.ceil((self.side - 1) / 2 * self.scales[1] / _PIXEL * math.sqrt(2)) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.side * self.side,)

    @property
    def digits(self) -> int:
        return self.n_digits

    @property
    def redrawn(self) -> bool:
        return self.fresh

    @property
    def segments(self) -> int:
        return 1 + self.n_digits

    @property
    def ink(self) -> int:
        """Value of a digit's darkest pixel: a sum over the pixels that are downscaled to one."""
        return int(255 * (28 // self.digit) ** 2)

    @property
    def full_scale(self) -> float:
        return float(self.ink**self.n_digits * (DEPTH if self.kind == "sinusoids" else PHOTOGRAPH))

    def painter(self, material: NDArray[Any] | None, device: torch.device) -> Painter:
        return _TexturedPainter(self, material, device)


class _TexturedPainter(Painter):
    def __init__(self, scene: TexturedScene, material: NDArray[Any] | None, device: torch.device) -> None:
        self._scene = scene
        textures = sinusoids() if scene.kind == "sinusoids" else material
        assert textures is not None, "photographs are the material of the data set"
        self._textures = torch.from_numpy(textures.reshape(-1)).to(device)
        self._place = torch.arange(scene.side, device=device)
        turns = [2 * math.pi * place / _ANGLES for place in range(_ANGLES)]
        self._cosines = torch.tensor([round(_UNIT * math.cos(turn)) for turn in turns], device=device)
        self._sines = torch.tensor([round(_UNIT * math.sin(turn)) for turn in turns], device=device)

    def draw(self, digits: Tensor | None, key: int | Tensor, numbers: Tensor, part: int) -> tuple[Tensor, Tensor]:
        assert digits is not None, "the scene has digits"
        scene, layers = self._scene, 1 + self._scene.n_digits
        drawn = draws(key, numbers, 1 + 5 * layers)  # order; texture, two places, rotation and scale of each layer
        of_layer = drawn[..., 1:].view(len(numbers), layers, 5)
        textures = self._sinusoids if scene.kind == "sinusoids" else self._photographs
        patches = textures(self._distinct(of_layer[..., 0]), of_layer[..., 1:], part)  # (n, layers, D)
        masks = self._placed(digits.long()).flatten(2)  # (n, digits, D)
        if scene.n_digits == 2:
            swapped = choices(drawn[:, 0], 2).view(-1, 1, 1) == 1
            masks = torch.where(swapped, masks.flip(1), masks)
        image, shares = patches[:, 0], [torch.ones_like(patches[:, 0])]
        for layer in range(1, layers):
            mask = masks[:, layer - 1]
            # Shares and images are in units of ink ** layer.
            image = (scene.ink - mask) * image + mask * scene.ink ** (layer - 1) * patches[:, layer]
            shares = [share * (scene.ink - mask) for share in shares] + [mask * scene.ink ** (layer - 1)]
        largest, segment = torch.stack(shares, 1).max(1)
        scored = 10 * largest > 9 * scene.ink**scene.n_digits
        return image, torch.where(scored, segment, UNSCORED)

    def _distinct(self, drawn: Tensor) -> Tensor:
        """Return different textures for the layers: (n, layers) -> (n, layers)."""
        chosen = [choices(drawn[:, 0], TEXTURES)]
        for layer in range(1, drawn.shape[1]):
            texture = choices(drawn[:, layer], TEXTURES - layer)
            for other in torch.stack(chosen, 1).sort(1).values.unbind(1):
                texture = texture + (texture >= other)
            chosen.append(texture)
        return torch.stack(chosen, 1)

    def _placed(self, digits: Tensor) -> Tensor:
        """Return digits (n, O, d, d) in their places, (n, O, side, side)."""
        scene = self._scene
        border = (scene.side - scene.digit) // 2
        shifts = (0,) if scene.n_digits == 1 else (-scene.shift, scene.shift)
        placed = []
        for digit, shift in zip(digits.unbind(1), shifts, strict=True):
            low, high = border + shift, scene.side - scene.digit - border - shift  # negative ones cut
            placed.append(torch.nn.functional.pad(digit, (low, high, low, high)))
        return torch.stack(placed, 1)

    def _sinusoids(self, texture: Tensor, drawn: Tensor, part: int) -> Tensor:
        """Return crops of textures (n, layers) at drawn places, (n, layers, D)."""
        room = SIDE - self._scene.side + 1
        row, column = choices(drawn[..., 0], room), choices(drawn[..., 1], room)
        rows = (texture * SIDE + row).unsqueeze(-1) + self._place
        place = rows.unsqueeze(-1) * SIDE + (column.unsqueeze(-1) + self._place).unsqueeze(-2)
        return self._textures[place.flatten(2)]

    def _photographs(self, texture: Tensor, drawn: Tensor, part: int) -> Tensor:
        """Return parts of photographs, in training rotated and scaled: (n, layers) -> (n, layers, D)."""
        scene, reach = self._scene, self._scene.reach
        row = reach + choices(drawn[..., 0], HEIGHT - 2 * reach)
        column = reach + choices(drawn[..., 1], WIDTH - 2 * reach)
        low, high = scene.scales
        if part == TRAINING:
            angle, scale = choices(drawn[..., 2], _ANGLES), low + choices(drawn[..., 3], high - low + 1)
        else:
            angle, scale = torch.zeros_like(row), torch.full_like(row, _PIXEL)
        cosine, sine = (table[angle][..., None, None] for table in (self._cosines, self._sines))
        centred = 2 * self._place - (scene.side - 1)  # in halves of a pixel
        down, across = centred[:, None], centred[None, :]

        def places(centre: Tensor, turned: Tensor) -> Tensor:
            # In 1/256 of a pixel: halves x sines of 1/4096 x scales of 1/256.
            return centre[..., None, None] * _PIXEL + ((turned * scale[..., None, None]) >> 13)

        y, x = places(row, down * cosine - across * sine), places(column, down * sine + across * cosine)
        (y0, fy), (x0, fx) = ((each >> 8, each & (_PIXEL - 1)) for each in (y, x))
        half = TEXTURES if part == TEST else 0  # photographs of the right halves come after those of the left ones
        base = ((half + texture)[..., None, None] * HEIGHT + y0) * WIDTH + x0
        value = (_PIXEL - fy) * ((_PIXEL - fx) * self._textures[base] + fx * self._textures[base + 1])
        below = base + WIDTH
        value = value + fy * ((_PIXEL - fx) * self._textures[below] + fx * self._textures[below + 1])
        return (value >> 16).flatten(2)
