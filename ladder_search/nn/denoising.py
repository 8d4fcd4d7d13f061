"""Settings and rectifiers shared by ladder networks of every kind.

Legend: layer 0 is the input and layer L the softmax; ``noise_std`` the sigmas, ``lambda_`` the denoising weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST, COST_SUPERVISED, cost_denoising
from ladder_search.nn.batchnorm import Normalised
from ladder_search.nn.closed_form import ClosedForm
from ladder_search.nn.combinators import LEAKY_SLOPE, find_combinator
from ladder_search.nn.network import Column
from ladder_search.nn.protocol import ColumnConfig

Decoder = Literal["full", "gamma", "none"]

Activation = Literal["relu", "leaky-relu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingConfig(ColumnConfig):
    """Settings shared by ladders of every kind; vectors have one entry per layer 0..L."""

    layout: ClassVar[tuple[str, ...]]
    """Names of the settings of the layers besides ``activation``."""
    noise_std: tuple[float, ...]
    """Standard deviation of the Gaussian noise added at layers 0..L; entry 0 is that of the input."""
    lambda_: tuple[float, ...]
    """Denoising weights of layers 0..L, coefficients of the squared error averaged over batch and units."""
    decoder: Decoder
    """full: decode every layer; gamma: decode the top layer only; none: the supervised baseline."""
    combinator: str = "gauss"
    """Key of ``nn.combinators.COMBINATORS``, or mlp-… / amlp-… with hidden sizes."""
    combinator_std: float = 0.025
    """Initial standard deviation of the randomly initialised combinators (rand-init, mlp, amlp)."""
    lateral: bool = True
    """False: g reads only u, with z_tilde replaced by zero (Pezeshki's NoLateral)."""
    activation: Activation = "relu"
    """Nonlinearity of all layers except pools and the softmax; the leaky slope is 0.1."""

    @property
    def depth(self) -> int:
        raise NotImplementedError

    @property
    def reads_several_classes(self) -> bool:
        return True

    @property
    def decoded_layers(self) -> tuple[int, ...]:
        """Layers with a combinator, from the top down."""
        return {"full": tuple(range(self.depth, -1, -1)), "gamma": (self.depth,), "none": ()}[self.decoder]

    def hyper(self) -> dict[str, list[float]]:
        return {"noise_std": list(self.noise_std), "lambda_": list(self.lambda_)}

    def on_network_of(self, other: Self) -> Self:
        layout = {name: getattr(other, name) for name in (*self.layout, "activation")}
        noise_std, lambda_ = (_stretched(vector, other.depth) for vector in (self.noise_std, self.lambda_))
        return replace(self, **layout, noise_std=noise_std, lambda_=lambda_)

    def check_layers(self) -> None:
        """Raise ``SettingError`` unless both vectors have a valid entry for every layer and fit the decoder."""
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


def _stretched(vector: tuple[float, ...], depth: int) -> tuple[float, ...]:
    """Return a per-layer setting for another depth: entries 0 and 1 stay, the last is repeated."""
    return (*vector[:2], *(vector[-1],) * depth)[: depth + 1]


class Denoiser(Column, Normalised):
    """Base class of ladder networks."""

    config: DenoisingConfig

    @property
    def term_names(self) -> tuple[str, ...]:
        return (COST, COST_SUPERVISED, *(cost_denoising(i) for i in sorted(self.config.decoded_layers)))

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        rows = labelled + (unlabelled if self.config.decoded_layers else 0)
        return rows * sum(map(math.prod, self.config.sizes))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.features(x)[-1], dim=-1)


class _Relu(ClosedForm):
    """``relu`` with a product as its gradient, because a mask would prevent vectorised loops over odd widths."""

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
    if activation == "relu":
        h: Tensor = _Relu.of(z)
        return h
    return functional.leaky_relu(z, LEAKY_SLOPE)
