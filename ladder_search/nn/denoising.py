"""What ladder networks of every kind have in common beside their layers: settings by layer and the rectifiers.

Legend: layer 0 is the input and layer L the softmax; ``noise_std`` the sigmas, ``lambda_`` the denoising weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.nn.closed_form import ClosedForm
from ladder_search.nn.combinators import LEAKY_SLOPE, find_combinator
from ladder_search.nn.protocol import ColumnConfig

Decoder = Literal["full", "gamma", "none"]
"""full: every layer is decoded; gamma: the top layer alone; none: the supervised baseline."""

Activation = Literal["relu", "leaky-relu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingConfig(ColumnConfig):
    """Settings that ladders of every kind have; vectors have one entry for each of the layers 0..L."""

    noise_std: tuple[float, ...]
    """Standard deviation of the Gaussian noise added at layers 0..L; entry 0 is the input's own."""
    lambda_: tuple[float, ...]
    """Denoising weight of layers 0..L; multiplies the squared error averaged over batch and units."""
    decoder: Decoder
    """full: every layer is decoded; gamma: the top layer alone; none: the supervised baseline."""
    combinator: str = "gauss"
    """Row of ``nn.combinators.COMBINATORS``, or mlp-… / amlp-… with hidden sizes."""
    combinator_std: float = 0.025
    """Initial standard deviation of the combinators that start at random (rand-init, mlp, amlp)."""
    lateral: bool = True
    """False: g sees u alone (Pezeshki's NoLateral): z_tilde is replaced by zero, so its terms vanish."""
    activation: Activation = "relu"
    """Nonlinearity of all layers but pools and the softmax; the leaky slope is 0.1."""

    @property
    def depth(self) -> int:
        """L, the number of layers above the input."""
        raise NotImplementedError

    @property
    def decoded_layers(self) -> tuple[int, ...]:
        """Layers with a combinator, from the top down."""
        return {"full": tuple(range(self.depth, -1, -1)), "gamma": (self.depth,), "none": ()}[self.decoder]

    def hyper(self) -> dict[str, list[float]]:
        return {"noise_std": list(self.noise_std), "lambda_": list(self.lambda_)}

    def check_layers(self) -> None:
        """Raise ``SettingError`` unless both vectors have a possible entry for every layer and suit the decoder."""
        depth = self.depth
        for name, vector, high in (("noise_std", self.noise_std, 10.0), ("lambda_", self.lambda_, 1e7)):
            if len(vector) != depth + 1:
                raise SettingError(
                    f"model.{name} must have one entry per layer 0..{depth} ({depth + 1} in all), "
                    f"got {len(vector)}; give {depth + 1} numbers."
                )
            for layer, value in enumerate(vector):
                in_range(f"model.{name}[{layer}]", value, 0.0, high)
        undecoded = {"full": (), "gamma": self.lambda_[:-1], "none": self.lambda_}[self.decoder]
        if any(undecoded):
            gamma = self.decoder == "gamma"
            allowed = "only the top layer's weight may be above 0" if gamma else "every weight must be 0"
            raise SettingError(
                f"with model.decoder={self.decoder} {allowed}, got lambda_={list(self.lambda_)}; "
                "set the others to 0 or decoder=full."
            )
        in_range("model.combinator_std", self.combinator_std, 0.0, 10.0)
        find_combinator(self.combinator)


def stretched(vector: tuple[float, ...], depth: int) -> tuple[float, ...]:
    """Return a setting by layer for a network of another depth: entries 0 and 1 stay, the last one is repeated."""
    return (*vector[:2], *(vector[-1],) * depth)[: depth + 1]


class _Relu(ClosedForm):
    """``relu``; its gradient is a product, since a choice by a mask keeps loops over odd widths from being vectors."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return functional.relu(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        h: Tensor = ctx.saved_tensors[0]
        return d * h.sign()


def rectified(z: Tensor, activation: Activation) -> Tensor:
    """Return the rectifier's value of ``z``, elementwise."""
    if activation == "relu":
        found: Tensor = _Relu.of(z)
        return found
    return functional.leaky_relu(z, LEAKY_SLOPE)
