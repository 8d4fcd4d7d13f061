"""Rasmus et al. 2015: the convolutional rows on MNIST (100 labels) and CIFAR-10 (4,000), and a small one on digits.

Settings are those of the original code's commands. The supervised networks overfit and train for 20 epochs only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ladder_search.data.config import DataConfig
from ladder_search.models.conv_ladder import ConvLadderConfig
from ladder_search.nn import maps
from ladder_search.nn.denoising import Activation, Decoder
from ladder_search.studies.ladder import ON_DIGITS
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig

RASMUS = "Rasmus et al. 2015, convolutional networks"

_GAMMA, _BASE = "Gamma model: top layer denoised", "supervised baseline with noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Net:
    """One of the paper's networks."""

    image: tuple[int, int, int]
    layers: tuple[str, ...]
    activation: Activation = "relu"
    top_gamma: bool = True

    def model(self, decoder: Decoder, lambda_: tuple[float, ...], local: float = 0.3) -> ConvLadderConfig:
        """Return the network with the given lowest or highest weights; the others are 0.1 in a full decoder, else 0."""
        depth = len(self.layers)
        rest = depth + 1 - len(lambda_)
        weights = (*lambda_, *(0.1,) * rest) if decoder == "full" else (*(0.0,) * rest, *lambda_)
        return ConvLadderConfig(
            image=self.image,
            layers=self.layers,
            # The input's noise is 0.3 in every row; only that of the layers differs.
            noise_std=(0.3, *(local,) * depth),
            lambda_=weights,
            decoder=decoder,
            activation=self.activation,
            top_gamma=self.top_gamma,
        )


def _read(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# A fully connected network as convolutions: its filter of 26 x 26 is applied at 3 x 3 positions.
CONV_FC = _Net(
    image=(1, 28, 28),
    layers=_read("convv:1000:26:1 convv:500:1:1 convv:250:1:1 convv:250:1:1 convv:250:1:1 convv:10:1:1 globalmeanpool"),
)
CONV_SMALL = _Net(image=(1, 28, 28), layers=maps.CONV_SMALL)
# After ConvPool-CNN-C of Springenberg et al. 2014.
CONV_LARGE = _Net(
    image=(3, 32, 32),
    layers=_read(
        "convv:96:3:1 convf:96:3:1 convf:96:3:1 maxpool:2:2 convv:192:3:1 convf:192:3:1 convv:192:3:1 maxpool:2:2 "
        "convv:192:3:1 convv:192:1:1 convv:10:1:1 globalmeanpool"
    ),
    activation="leaky-relu",
    top_gamma=False,
)
# Ours: Conv-Small with a quarter of its channels on 8 x 8 images, with a hundredth of the operations per step.
CONV_TINY = _Net(
    image=(1, 8, 8),
    layers=_read(
        "convf:8:5:1 maxpool:2:2 convv:16:3:1 convf:16:3:1 maxpool:2:2 convv:32:3:1 convv:10:1:1 globalmeanpool fc:10"
    ),
)

_SHORT = TrainingConfig(epochs=20, decay_start=0.5)

# Errors of Conv-Small fluctuate for some 30 epochs before they fall, as a public re-implementation's log shows, so
# trials are not compared earlier; with 10,000 validation rows an epoch is 500 updates. A trial at chance level has
# failed.
_STOP = StopConfig(first_rung_steps=15_000, failure_error=0.5, failure_steps=5000)
_STOP_SHORT = StopConfig(first_rung_steps=4000, failure_error=0.5, failure_steps=3000)
# CIFAR-10 has ten classes: 0.9 is chance level.
_STOP_CIFAR = StopConfig(first_rung_steps=8000, failure_error=0.7, failure_steps=4000)


_MNIST = partial(
    Study,
    family="ladder-conv",
    data=DataConfig(dataset="mnist", labels=100, validation=10_000),
    training=TrainingConfig(),
    stop=_STOP,
)
_CIFAR = partial(
    Study,
    family="ladder-conv",
    data=DataConfig(dataset="cifar10", labels=4000, validation=10_000, preprocessing="gcn-zca"),
    stop=_STOP_CIFAR,
)
_DIGITS = partial(
    Study, family="ladder-conv", data=DataConfig(dataset="digits", labels=100, validation=297), **ON_DIGITS
)
_target = partial(Target.percent, source=RASMUS)


STUDIES: tuple[Study, ...] = (
    _MNIST(
        name="mnist-100-conv-fc",
        title="Conv-FC, every layer denoised",
        model=CONV_FC.model("full", (1000.0, 10.0)),
        target=_target(0.99, 0.15),
    ),
    _MNIST(
        name="mnist-100-conv-small-gamma",
        title=f"Conv-Small, {_GAMMA}",
        model=CONV_SMALL.model("gamma", (1.0,)),
        target=_target(0.89, 0.50, verified=True),
        baseline="mnist-100-conv-small-supervised",
    ),
    _MNIST(
        name="mnist-100-conv-small-supervised",
        title=f"Conv-Small, {_BASE}",
        model=CONV_SMALL.model("none", (), local=0.45),
        training=_SHORT,
        stop=_STOP_SHORT,
        target=_target(6.43, 0.84, verified=True),
    ),
    _CIFAR(
        name="cifar10-4000-conv-large-gamma",
        title=f"Conv-Large, {_GAMMA}",
        model=CONV_LARGE.model("gamma", (4.0,)),
        training=TrainingConfig(epochs=70, decay_start=0.86),
        target=_target(20.40, 0.47, verified=True, spread_verified=True),
        baseline="cifar10-4000-conv-large-supervised",
    ),
    _CIFAR(
        name="cifar10-4000-conv-large-supervised",
        title=f"Conv-Large, {_BASE}",
        model=CONV_LARGE.model("none", ()),
        training=_SHORT,
        target=_target(23.33, 0.61),
    ),
    _DIGITS(
        name="digits-100-conv-small-gamma",
        title=f"a quarter of Conv-Small, {_GAMMA}",
        model=CONV_TINY.model("gamma", (1.0,)),
        baseline="digits-100-conv-small-supervised",
    ),
    _DIGITS(
        name="digits-100-conv-small-supervised",
        title=f"a quarter of Conv-Small, {_BASE}",
        model=CONV_TINY.model("none", ()),
    ),
)
