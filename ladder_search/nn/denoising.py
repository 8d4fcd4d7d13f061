"""What ladder networks of every kind have in common beside their layers: settings by layer and the rectifiers.

Legend: layer 0 is the input and layer L the softmax; ``noise_std`` the sigmas, ``lambda_`` the denoising weights.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.nn.closed_form import ClosedForm

LEAKY_SLOPE = 0.1

Decoder = Literal["full", "gamma", "none"]
"""full: every layer is decoded; gamma: the top layer alone; none: the supervised baseline."""

Activation = Literal["relu", "leaky-relu"]


def decoded_layers(decoder: Decoder, depth: int) -> tuple[int, ...]:
    """Layers with a combinator, from the top down; ``depth`` is L."""
    return {"full": tuple(range(depth, -1, -1)), "gamma": (depth,), "none": ()}[decoder]


def check_layer_settings(
    noise_std: tuple[float, ...], lambda_: tuple[float, ...], decoder: Decoder, depth: int
) -> None:
    """Raise ``SettingError`` unless both vectors have a possible entry for every layer and suit the decoder."""
    for name, vector, high in (("noise_std", noise_std, 10.0), ("lambda_", lambda_, 1e7)):
        if len(vector) != depth + 1:
            raise SettingError(
                f"model.{name} must have one entry per layer 0..{depth} ({depth + 1} in all), "
                f"got {len(vector)}; give {depth + 1} numbers."
            )
        for layer, value in enumerate(vector):
            in_range(f"model.{name}[{layer}]", value, 0.0, high)
    undecoded = {"full": (), "gamma": lambda_[:-1], "none": lambda_}[decoder]
    if any(undecoded):
        allowed = "only the top layer's weight may be above 0" if decoder == "gamma" else "every weight must be 0"
        raise SettingError(
            f"with model.decoder={decoder} {allowed}, got lambda_={list(lambda_)}; set the others to 0 or decoder=full."
        )


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
